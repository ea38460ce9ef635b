"""jaxtrace: a language model's own uncertainty, computed inside its jitted step."""

from jaxtrace.errors import CheckpointError as CheckpointError
from jaxtrace.errors import ConfigError as ConfigError
from jaxtrace.errors import JaxtraceError as JaxtraceError
from jaxtrace.errors import PromptError as PromptError
from jaxtrace.errors import StoreError as StoreError
from jaxtrace.errors import StudyError as StudyError
from jaxtrace.models.config import DecoderConfig as DecoderConfig
from jaxtrace.models.decoder import init_params as init_params
from jaxtrace.models.interventions import Interventions as Interventions
from jaxtrace.parallel.mesh import mesh as mesh
from jaxtrace.planning.plan import plan as plan
from jaxtrace.store.reader import open_trace as open  # noqa: F401 (`jaxtrace.open`)
from jaxtrace.tasks.prompt import Prompt as Prompt
from jaxtrace.tracing.measure import StepTrace as StepTrace
from jaxtrace.tracing.model import Model as Model
from jaxtrace.tracing.model import load as load
from jaxtrace.tracing.probes import Probes as Probes
from jaxtrace.tracing.samplers import Drawn as Drawn
from jaxtrace.tracing.samplers import Dslider as Dslider
from jaxtrace.tracing.samplers import Entropix as Entropix
from jaxtrace.tracing.samplers import Greedy as Greedy
from jaxtrace.tracing.samplers import Sample as Sample
from jaxtrace.tracing.samplers import Sampler as Sampler
from jaxtrace.tracing.samplers import pause_token as pause_token
from jaxtrace.tracing.step import State as State
from jaxtrace.tracing.step import StopRules as StopRules
from jaxtrace.tracing.step import decode_step as decode_step
from jaxtrace.tracing.step import init_state as init_state
from jaxtrace.tracing.step import prefill as prefill
from jaxtrace.tracing.step import score_step as score_step
from jaxtrace.tracing.step import stop_rules as stop_rules
from jaxtrace.tracing.trace import Row as Row
from jaxtrace.tracing.trace import Trace as Trace
