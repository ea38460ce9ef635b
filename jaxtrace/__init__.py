"""jaxtrace: a language model's own uncertainty, computed inside its jitted step."""

from jaxtrace.engine.measure import StepTrace as StepTrace
from jaxtrace.engine.samplers import Drawn as Drawn
from jaxtrace.engine.samplers import Dslider as Dslider
from jaxtrace.engine.samplers import Entropix as Entropix
from jaxtrace.engine.samplers import Greedy as Greedy
from jaxtrace.engine.samplers import Sample as Sample
from jaxtrace.engine.samplers import Sampler as Sampler
from jaxtrace.engine.samplers import pause_token as pause_token
from jaxtrace.engine.step import State as State
from jaxtrace.engine.step import StopRules as StopRules
from jaxtrace.engine.step import decode_step as decode_step
from jaxtrace.engine.step import init_state as init_state
from jaxtrace.engine.step import prefill as prefill
from jaxtrace.engine.step import score_step as score_step
from jaxtrace.engine.step import stop_rules as stop_rules
from jaxtrace.errors import CheckpointError as CheckpointError
from jaxtrace.errors import ConfigError as ConfigError
from jaxtrace.errors import JaxtraceError as JaxtraceError
from jaxtrace.errors import PromptError as PromptError
from jaxtrace.errors import StoreError as StoreError
from jaxtrace.errors import StudyError as StudyError
from jaxtrace.model import Model as Model
from jaxtrace.model import load as load
from jaxtrace.models.config import DecoderConfig as DecoderConfig
from jaxtrace.models.decoder import init_params as init_params
from jaxtrace.models.interventions import Interventions as Interventions
from jaxtrace.parallel.mesh import mesh as mesh
from jaxtrace.planning.plan import plan as plan
from jaxtrace.prompts import Prompt as Prompt
from jaxtrace.settings.probes import Probes as Probes
from jaxtrace.traces.reader import open_trace as open  # noqa: F401 (`jaxtrace.open`)
from jaxtrace.traces.trace import Row as Row
from jaxtrace.traces.trace import Trace as Trace
