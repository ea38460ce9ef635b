"""One number per token: what the page colours by and its tooltips show."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxtrace.tracing.trace import Row


class Column(NamedTuple):
    """A token metric as a reader meets it.

    Attributes:
      label: its words.
      unit: "nats", "nats²", "layer", or "" for a pure number.
      colour: whether the page offers it as a colour.
    """

    label: str
    unit: str
    colour: bool = False


COLUMNS: dict[str, Column] = {
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
}


def token_columns(row: Row, layers: Sequence[int]) -> dict[str, np.ndarray]:
    """The columns that the metrics of a row over some layers allow, name → float [steps].

    Attention and dispersion are plain means over layers and heads.
    """
    columns = {}
    for name in COLUMNS:
        if name == "surprisal" and "logprob" in row.metrics:
            columns[name] = -row.metrics["logprob"]
        elif name == "prediction_depth" and "lens_top1" in row.metrics:
            columns[name] = prediction_depth(row.metrics["lens_top1"], layers)
        elif name in row.metrics:
            values = row.metrics[name]
            columns[name] = values.reshape(row.length, int(np.prod(values.shape[1:]))).mean(1)
    return columns


def prediction_depth(lens_top1: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """First of some layers whose top-1 is the last one's and stays so: [steps, layers] → float [steps]."""
    agrees = (lens_top1 == lens_top1[:, -1:])[:, ::-1]
    return np.array(layers, float)[len(layers) - np.cumprod(agrees, 1).sum(1)]


def rounded(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Values as JSON takes them: `digits` significant digits, None for what is not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
