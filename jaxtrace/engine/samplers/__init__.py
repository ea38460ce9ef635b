"""Samplers: the interface that the step calls, and the samplers that come with jaxtrace."""

from jaxtrace.engine.samplers.draw import Greedy as Greedy
from jaxtrace.engine.samplers.draw import Sample as Sample
from jaxtrace.engine.samplers.dslider import Dslider as Dslider
from jaxtrace.engine.samplers.entropix import Entropix as Entropix
from jaxtrace.engine.samplers.pause import pause_token as pause_token
from jaxtrace.engine.samplers.plugin import plugin_sampler as plugin_sampler
from jaxtrace.engine.samplers.plugin import sampler as sampler
from jaxtrace.engine.samplers.protocol import Sampler as Sampler
from jaxtrace.engine.samplers.protocol import SamplerOutput as SamplerOutput
