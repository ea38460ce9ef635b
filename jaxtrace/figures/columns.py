"""Token columns: one number per token, which the report page colours by and shows in its tooltips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxtrace.schema import METRICS, token_column_metrics
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.depth import prediction_depth
from jaxtrace.traces.row import Row


def token_columns(row: Row, layers: Sequence[int], confidence: AnswerConfidence | None = None) -> dict[str, np.ndarray]:
    """Return the token columns that a row's metrics allow.

    Args:
      confidence: confidence in the row's answer; None if no model was trained.

    Returns:
      name → float [steps], in the page's order. Metrics of layers and heads are plain means over them.
    """
    columns = {} if confidence is None else {"confidence": confidence.tokens}
    if "logprob" in row.metrics:
        columns["surprisal"] = -row.metrics["logprob"]
    if "lens_top1" in row.metrics:
        depth = prediction_depth(row.metrics["lens_top1"], layers)
        if (entropy := row.metrics.get("lens_entropy")) is not None:
            depth = np.where(np.isfinite(entropy[:, -1]), depth, np.nan)  # the top-1 of NaN is any token
        columns["prediction_depth"] = depth
    shown = token_column_metrics()
    for name in shown.keys() & row.metrics.keys():
        values = row.metrics[name]
        if METRICS[name].integer:
            values = np.where(values < 0, np.nan, values)
        columns[name] = values.reshape(row.length, int(np.prod(values.shape[1:]))).mean(1)
    return {name: columns[name] for name in shown if name in columns}


def rounded(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Return values for JSON, rounded to significant digits; None replaces what is not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
