"""jaxtrace: a language model's own uncertainty, computed inside its jitted step."""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtrace import estimators as estimators
    from jaxtrace.engine.measure import StepTrace as StepTrace
    from jaxtrace.engine.samplers import Dslider as Dslider
    from jaxtrace.engine.samplers import Entropix as Entropix
    from jaxtrace.engine.samplers import Greedy as Greedy
    from jaxtrace.engine.samplers import Sample as Sample
    from jaxtrace.engine.samplers import Sampler as Sampler
    from jaxtrace.engine.samplers import SamplerOutput as SamplerOutput
    from jaxtrace.engine.samplers import pause_token as pause_token
    from jaxtrace.engine.samplers import sampler as sampler
    from jaxtrace.engine.step import State as State
    from jaxtrace.engine.step import StopRules as StopRules
    from jaxtrace.engine.step import decode_step as decode_step
    from jaxtrace.engine.step import init_state as init_state
    from jaxtrace.engine.step import prefill as prefill
    from jaxtrace.engine.step import score_step as score_step
    from jaxtrace.engine.step import stop_rules as stop_rules
    from jaxtrace.engine.step_metrics import StepInputs as StepInputs
    from jaxtrace.engine.step_metrics import step_metric as step_metric
    from jaxtrace.errors import CheckpointError as CheckpointError
    from jaxtrace.errors import ConfigError as ConfigError
    from jaxtrace.errors import JaxtraceError as JaxtraceError
    from jaxtrace.errors import OutOfMemoryError as OutOfMemoryError
    from jaxtrace.errors import PromptError as PromptError
    from jaxtrace.errors import StoreError as StoreError
    from jaxtrace.errors import StudyError as StudyError
    from jaxtrace.estimators.registry import estimator as estimator
    from jaxtrace.model import Model as Model
    from jaxtrace.model import load as load
    from jaxtrace.models.config import DecoderConfig as DecoderConfig
    from jaxtrace.models.decoder import init_params as init_params
    from jaxtrace.models.interventions import Interventions as Interventions
    from jaxtrace.parallel.mesh import mesh as mesh
    from jaxtrace.planning.plan import plan as plan
    from jaxtrace.prompts import Prompt as Prompt
    from jaxtrace.settings.probes import Probes as Probes
    from jaxtrace.tasks.registry import task as task
    from jaxtrace.traces.reader import open_trace as open  # noqa: F401
    from jaxtrace.traces.row import Row as Row
    from jaxtrace.traces.trace import Trace as Trace

# Module of each public name, "" for a name that is a module itself. It is imported when the name is first used, so that
# `import jaxtrace` stays fast. The block above tells type checkers the same; tests/test_public_names.py compares them.
_MODULES = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DecoderConfig": "models.config",
    "Dslider": "engine.samplers",
    "Entropix": "engine.samplers",
    "Greedy": "engine.samplers",
    "Interventions": "models.interventions",
    "JaxtraceError": "errors",
    "Model": "model",
    "OutOfMemoryError": "errors",
    "Probes": "settings.probes",
    "Prompt": "prompts",
    "PromptError": "errors",
    "Row": "traces.row",
    "Sample": "engine.samplers",
    "Sampler": "engine.samplers",
    "SamplerOutput": "engine.samplers",
    "State": "engine.step",
    "StepTrace": "engine.measure",
    "StepInputs": "engine.step_metrics",
    "StopRules": "engine.step",
    "StoreError": "errors",
    "StudyError": "errors",
    "Trace": "traces.trace",
    "decode_step": "engine.step",
    "estimator": "estimators.registry",
    "estimators": "",
    "init_params": "models.decoder",
    "init_state": "engine.step",
    "load": "model",
    "mesh": "parallel.mesh",
    "open": "traces.reader:open_trace",
    "pause_token": "engine.samplers",
    "plan": "planning.plan",
    "prefill": "engine.step",
    "sampler": "engine.samplers",
    "score_step": "engine.step",
    "step_metric": "engine.step_metrics",
    "stop_rules": "engine.step",
    "task": "tasks.registry",
}
_RENAMED = {"Drawn": "SamplerOutput"}  # deprecated names, kept for one release

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if new := _RENAMED.get(name):
        warnings.warn(f"jaxtrace.{name} is renamed to jaxtrace.{new}; use that", DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name not in _MODULES:
        raise AttributeError(f"module 'jaxtrace' has no attribute {name!r}")
    if not _MODULES[name]:
        return import_module(f"jaxtrace.{name}")
    module, _, attribute = _MODULES[name].partition(":")
    value = globals()[name] = getattr(import_module(f"jaxtrace.{module}"), attribute or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
