"""Drawing the next token: what a sampler is, and those there are."""

from jaxtrace.tracing.samplers.draw import Greedy as Greedy
from jaxtrace.tracing.samplers.draw import Sample as Sample
from jaxtrace.tracing.samplers.dslider import Dslider as Dslider
from jaxtrace.tracing.samplers.entropix import Entropix as Entropix
from jaxtrace.tracing.samplers.pause import pause_token as pause_token
from jaxtrace.tracing.samplers.protocol import Drawn as Drawn
from jaxtrace.tracing.samplers.protocol import Sampler as Sampler
