"""Token columns: one number per token, which the report page colours by and shows in its tooltips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from jaxtrace.schema import DERIVED, METRICS, token_column_metrics
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.depth import row_prediction_depth
from jaxtrace.traces.layers import LayerCount, layer_count, layer_mean
from jaxtrace.traces.row import Row


def token_columns(row: Row, layers: Sequence[int], confidence: AnswerConfidence | None = None) -> dict[str, np.ndarray]:
    """Return the token columns that a row's metrics allow.

    Args:
      confidence: confidence in the row's answer; None if no model was trained.

    Returns:
      name → float [steps], in the page's order. Metrics of layers and heads are means over the layers that have values.
    """
    columns = {} if confidence is None else {"confidence": confidence.tokens}
    if "logprob" in row.metrics:
        columns["surprisal"] = -row.metrics["logprob"]
    if "lens_top1" in row.metrics:
        columns["prediction_depth"] = row_prediction_depth(row, layers)
    shown = token_column_metrics()
    for name in shown.keys() & row.metrics.keys():
        columns[name] = layer_mean(row, name)
        if METRICS[name].integer:
            columns[name] = np.where(columns[name] < 0, np.nan, columns[name])
    return {name: columns[name] for name in shown if name in columns}


def layer_counts(row: Row, names: Iterable[str]) -> dict[str, LayerCount | None]:
    """Return over how many layers each of some token columns is in a row; see `layer_count`."""
    sources = {name: DERIVED[name].made_of if name in DERIVED else (name,) for name in names}
    return {name: layer_count(row, of_name[0]) for name, of_name in sources.items() if of_name}


def rounded(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Return values for JSON, rounded to significant digits; None replaces what is not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
