"""Raw material of a trace as columns of the table of tokens: a list for each step."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jaxtrace.schema import RAW
from jaxtrace.traces.columns import flat_values, lists
from jaxtrace.traces.trace import Row


def raw_columns(
    rows: Sequence[Row], positions: Sequence[np.ndarray], info: dict[str, Any]
) -> Iterator[tuple[str, pa.Array, str, str]]:
    """(name, column, definition, units) of what raw material there is.

    Args:
      rows: of the trace.
      positions: of each row's steps.
      info: of the trace; "residuals" and "attention_rows" are used.
    """
    for name in RAW:
        if name not in rows[0].metrics:
            continue
        metric, values = RAW[name], [row.metrics[name] for row in rows]
        if name == "attention_rows":
            sizes = np.concatenate(positions) + 1
            seen = [np.arange(x.shape[-1]) <= position[:, None] for x, position in zip(values, positions, strict=True)]
            for i, (layer, head) in enumerate(info[name]):
                flat = np.concatenate([x[:, i][of] for x, of in zip(values, seen, strict=True)])
                text = f"attention weights of head {head} of layer {layer} over positions 0 to the step's own"
                yield f"attention_{layer}_{head}", lists(flat, metric, sizes), text, metric.unit
        elif name == "residuals":
            for i, layer in enumerate(info[name]):
                of_layer = np.concatenate([x[:, i] for x in values])
                text = f"the residual stream after layer {layer}"
                yield f"residual_{layer}", _matrix(of_layer, name), text, metric.unit
        else:
            yield name, _matrix(np.concatenate(values), name), metric.definition, metric.unit


def raw_metrics(tokens: pa.Table, info: dict[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `raw_columns`, of the steps of one row."""
    steps = len(tokens)
    found = {}
    if layers := info.get("residuals"):
        of_layers = [flat_values(tokens[f"residual_{layer}"], RAW["residuals"]) for layer in layers]
        found["residuals"] = np.stack([x.reshape(steps, -1) for x in of_layers], axis=1)
    if info.get("top_tokens"):
        for name in ("top_ids", "top_logprobs"):
            found[name] = flat_values(tokens[name], RAW[name]).reshape(steps, -1)
    if info.get("lens_renyi"):
        flat = flat_values(tokens["lens_renyi"], RAW["lens_renyi"])
        found["lens_renyi"] = flat.reshape(steps, -1, len(info["alphas"]))
    if pairs := info.get("attention_rows"):
        position = tokens["position"].to_numpy()
        seen = np.arange(position[-1] + 1) <= position[:, None]
        found["attention_rows"] = np.full((steps, len(pairs), seen.shape[1]), np.nan, np.float32)
        for i, (layer, head) in enumerate(pairs):
            column = tokens[f"attention_{layer}_{head}"]
            found["attention_rows"][:, i][seen] = flat_values(column, RAW["attention_rows"])
    return found


def _matrix(values: np.ndarray, name: str) -> pa.Array:
    values = values.reshape(len(values), -1)
    return lists(values, RAW[name], [values.shape[1]] * len(values))
