"""Options of the inputs that `jaxtrace estimate` gives to estimators; see `jaxtrace.estimators.registry.INPUTS`.

To add an input: its line in `INPUTS`, an option of the same name here, and its function in `LOADERS`. Comparisons of
answers are in `jaxtrace.cli.comparisons`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic.config import JsonDict

from jaxtrace.errors import JaxtraceError
from jaxtrace.settings.numbers import Natural
from jaxtrace.settings.validation import StrictModel

if TYPE_CHECKING:
    from jaxtrace.model import Model
    from jaxtrace.traces.reader import StoredTrace

GROUP: JsonDict = {"group": "Inputs of estimators"}
OTHER_TRACE: JsonDict = {**GROUP, "exists": "name the directory of a trace"}


class EstimatorInputs(StrictModel):
    """Inputs of estimators as options; each is loaded only if a chosen estimator has a parameter of its name."""

    model: str | None = Field(
        None,
        description="Model that reads the answers once more: checkpoint, hub id or name. Default: the trace's own.",
        json_schema_extra=GROUP,
    )
    training: str | None = Field(
        None, description="Trace of other prompts, which estimators are fitted to.", json_schema_extra=OTHER_TRACE
    )
    layer: Natural | None = Field(
        None,
        description="Layer of recorded residuals. Default: the estimator's own, or the last.",
        json_schema_extra=GROUP,
    )
    background: str | None = Field(
        None, description="Trace of unrelated prompts, for relative distances.", json_schema_extra=OTHER_TRACE
    )


def load_inputs(options: EstimatorInputs, names: Collection[str], trace: StoredTrace, *, every: bool) -> dict[str, Any]:
    """Return the inputs of some names that the options or the trace give.

    Args:
      every: True if an input that no option names may be missing: a warning says why, and estimators lack it.

    Raises:
      JaxtraceError: an input cannot be loaded.
    """
    inputs = {}
    for name in LOADERS.keys() & names:
        option = getattr(options, name)
        try:
            value = LOADERS[name](option, trace)
        except JaxtraceError as error:
            if option is not None or not every:
                raise
            logging.getLogger("jaxtrace").warning("no %s for estimators: %s", name, error)
            continue
        if value is not None:
            inputs[name] = value
    return inputs


def _model(name: str | None, trace: StoredTrace) -> Model:
    from jaxtrace.run import load_traced

    return load_traced(trace, name)


def _other_trace(place: str | None, _: StoredTrace) -> StoredTrace | None:
    from jaxtrace.traces import open_trace

    return None if place is None else open_trace(place)


LOADERS: dict[str, Callable[[Any, StoredTrace], Any]] = {
    "model": _model,
    "training": _other_trace,
    "background": _other_trace,
    "layer": lambda layer, _: layer,
}
