"""One number per token: what the page colours by and its tooltips show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxtrace.schema import METRICS, QUADRANTS
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.depth import prediction_depth
from jaxtrace.traces.trace import Row


class Column(NamedTuple):
    """A token metric as a reader meets it.

    Attributes:
      label: its words.
      unit: "nats", "nats²", "layer", or "" for a pure number.
      colour: whether the page offers it as a colour.
      names: what its numbers 0, 1, … stand for; none of a quantity.
    """

    label: str
    unit: str
    colour: bool = False
    names: tuple[str, ...] = ()


COLUMNS: dict[str, Column] = {
    "confidence": Column("confidence", "", colour=True),
    "entropy": Column("entropy", "nats", colour=True),
    "varentropy": Column("varentropy", "nats²", colour=True),
    "surprisal": Column("surprisal", "nats", colour=True),
    "logprob": Column("log-probability", "nats"),
    "top1_prob": Column("top-1 probability", ""),
    "top1_top2_gap": Column("top-1 to top-2 gap", ""),
    "attention_entropy": Column("mean attention entropy", "nats", colour=True),
    "attention_entropy_normalized": Column("mean attention entropy / ln(keys)", "", colour=True),
    "sink_mass": Column("mean sink mass", ""),
    "hdi": Column("mean head dispersion (HDI)", "nats", colour=True),
    "head_jsd": Column("mean head divergence", "nats"),
    "prediction_depth": Column("prediction depth", "layer", colour=True),
    "quadrant": Column("sampler's quadrant", "", colour=True, names=tuple(QUADRANTS)),
}


def token_columns(row: Row, layers: Sequence[int], sure: AnswerConfidence | None = None) -> dict[str, np.ndarray]:
    """The columns that the metrics of a row over some layers allow, and its confidence if given: name → float [steps].

    Attention and dispersion are plain means over layers and heads.
    """
    columns = {} if sure is None else {"confidence": sure.tokens}
    for name in COLUMNS:
        if name == "surprisal" and "logprob" in row.metrics:
            columns[name] = -row.metrics["logprob"]
        elif name == "prediction_depth" and "lens_top1" in row.metrics:
            columns[name] = prediction_depth(row.metrics["lens_top1"], layers)
        elif name in row.metrics:
            values = row.metrics[name]
            if METRICS[name].integer:
                values = np.where(values < 0, np.nan, values)
            columns[name] = values.reshape(row.length, int(np.prod(values.shape[1:]))).mean(1)
    return columns


def rounded(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Values as JSON takes them: `digits` significant digits, None for what is not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
