"""Raw material of a trace as list columns of the tokens table, one list per step."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jaxtrace.schema import RAW
from jaxtrace.traces.columns import list_column, list_values
from jaxtrace.traces.row import Row


def raw_columns(
    rows: Sequence[Row], positions: Sequence[np.ndarray], info: dict[str, Any]
) -> Iterator[tuple[str, pa.Array, str, str]]:
    """Yield (name, column, definition, units) for each column of recorded raw material.

    Args:
      rows: rows of the trace.
      positions: positions of each row's steps.
      info: `Trace.info`; "residuals" and "attention_rows" are read.
    """
    for name in RAW:
        if name not in rows[0].metrics:
            continue
        metric, values = RAW[name], [row.metrics[name] for row in rows]
        if name == "attention_rows":
            sizes = np.concatenate(positions) + 1
            visible = [
                np.arange(x.shape[-1]) <= position[:, None] for x, position in zip(values, positions, strict=True)
            ]
            for i, (layer, head) in enumerate(info[name]):
                flat = np.concatenate([x[:, i][mask] for x, mask in zip(values, visible, strict=True)])
                text = f"attention weights of head {head} of layer {layer} over positions 0 to the step's own"
                yield f"attention_{layer}_{head}", list_column(flat, metric, sizes), text, metric.unit
        elif name == "residuals":
            for i, layer in enumerate(info[name]):
                stream = np.concatenate([x[:, i] for x in values])
                text = f"residual stream after layer {layer}"
                yield f"residual_{layer}", _matrix(stream, name), text, metric.unit
        else:
            yield name, _matrix(np.concatenate(values), name), metric.definition, metric.unit


def raw_metrics(tokens: pa.Table, info: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the raw material of one row's steps; the inverse of `raw_columns`."""
    steps = len(tokens)
    metrics = {}
    if layers := info.get("residuals"):
        streams = [list_values(tokens[f"residual_{layer}"], RAW["residuals"]) for layer in layers]
        metrics["residuals"] = np.stack([x.reshape(steps, -1) for x in streams], axis=1)
    if info.get("top_tokens"):
        for name in ("top_ids", "top_logprobs"):
            metrics[name] = list_values(tokens[name], RAW[name]).reshape(steps, -1)
    if info.get("lens_renyi"):
        flat = list_values(tokens["lens_renyi"], RAW["lens_renyi"])
        metrics["lens_renyi"] = flat.reshape(steps, -1, len(info["alphas"]))
    if count := info.get("experts"):
        metrics["experts"] = list_values(tokens["experts"], RAW["experts"]).reshape(steps, -1, count)
    if pairs := info.get("attention_rows"):
        position = tokens["position"].to_numpy()
        visible = np.arange(position[-1] + 1) <= position[:, None]
        metrics["attention_rows"] = np.full((steps, len(pairs), visible.shape[1]), np.nan, np.float32)
        for i, (layer, head) in enumerate(pairs):
            column = tokens[f"attention_{layer}_{head}"]
            metrics["attention_rows"][:, i][visible] = list_values(column, RAW["attention_rows"])
    return metrics


def _matrix(values: np.ndarray, name: str) -> pa.Array:
    values = values.reshape(len(values), -1)
    return list_column(values, RAW[name], [values.shape[1]] * len(values))
