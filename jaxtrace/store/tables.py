"""Rows of a trace as three Arrow tables, and back.

A value that is missing (NaN, or −1 of an integer metric) is null, so that a mean in SQL leaves it out.
The metadata of every field holds its definition and units.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxtrace.store.run import plain
from jaxtrace.tasks.prompt import Prompt
from jaxtrace.tracing.schema import METRICS, Metric
from jaxtrace.tracing.trace import Row

STRINGS, IDS = pa.list_(pa.string()), pa.list_(pa.int32())


def to_tables(numbered: Sequence[tuple[int, Row]], info: dict[str, Any]) -> dict[str, pa.Table]:
    """Lays rows out as the tables "tokens", "layers" and "prompts".

    Args:
      numbered: at least one row, with the number of its prompt; all with the same metrics.
      info: of the trace; "mode", "layers" and "alphas" are used.

    Returns:
      tokens: one row per prompt and step. `position` is the place in the sequence of the token whose
        next-token distribution this is: prompt length − 1 + step (generate), step (score).
      layers: one row per prompt, step and layer 0…L (no row when there is no metric of layers); metrics of
        heads as lists.
      prompts: one row per prompt.
    """
    prompts, rows = np.array([number for number, _ in numbered], np.int32), [row for _, row in numbered]
    return {
        "tokens": _tokens(rows, prompts, info),
        "layers": _layers(rows, prompts, info),
        "prompts": _prompts(rows, prompts),
    }


def from_tables(tables: dict[str, pa.Table], info: dict[str, Any]) -> list[tuple[int, Row]]:
    """The inverse of `to_tables`: (prompt number, row) in the order of the table "prompts"."""
    metrics = _read_metrics(tables["tokens"], tables["layers"], info)
    prompts = tables["prompts"].to_pylist()
    pieces = tables["tokens"]["token_text"].to_pylist()
    stops = np.cumsum([prompt["length"] for prompt in prompts], dtype=np.int64)
    rows = []
    for prompt, stop in zip(prompts, stops, strict=True):
        steps = slice(stop - prompt["length"], stop)
        row = Row(
            prompt=Prompt(
                text=prompt["text"],
                tokens=tuple(prompt["tokens"]) if prompt["text"] is None else None,
                id=prompt["id"],
                images=tuple(prompt["images"]),
                meta=json.loads(prompt["meta"]),
            ),
            prompt_tokens=np.array(prompt["tokens"], np.int32),
            prompt_pieces=tuple(prompt["pieces"]),
            metrics={name: values[steps] for name, values in metrics.items()},
            pieces=tuple(pieces[steps]),
            text=prompt["completion"],
            stop=prompt["stop"],
        )
        rows.append((prompt["prompt"], row))
    return rows


class _Columns:
    """Gathers named columns, each with its definition, into a table."""

    def __init__(self):
        self.fields: list[pa.Field] = []
        self.arrays: list[pa.Array] = []

    def add(self, name: str, array: pa.Array, text: str, unit: str = "") -> None:
        self.fields.append(pa.field(name, array.type, metadata={"definition": text, "units": unit}))
        self.arrays.append(array)

    def table(self) -> pa.Table:
        return pa.Table.from_arrays(self.arrays, schema=pa.schema(self.fields))


def _tokens(rows: Sequence[Row], prompts: np.ndarray, info: dict[str, Any]) -> pa.Table:
    lengths = [row.length for row in rows]
    steps = _ranges(lengths)
    first = [len(row.prompt_tokens) - 1 if info["mode"] == "generate" else 0 for row in rows]
    position = np.repeat(np.array(first, np.int32), lengths) + steps
    columns = _Columns()
    columns.add("prompt", pa.array(np.repeat(prompts, lengths)), "number of the prompt in the run")
    columns.add("step", pa.array(steps), "step of the prompt, from 0")
    columns.add("position", pa.array(position), "place of the token whose next-token distribution this is")
    for name, metric in METRICS.items():
        if name not in rows[0].metrics or "layer" in metric.dims:
            continue
        values = np.concatenate([row.metrics[name] for row in rows])
        if metric.dims == ("alpha",):
            for i, alpha in enumerate(info["alphas"]):
                text = f"Rényi entropy of order {alpha:g} of the next-token distribution"
                columns.add(_alpha_name(name, alpha), _nullable(values[:, i], metric), text, metric.unit)
        else:
            columns.add(name, _nullable(values, metric), metric.text, metric.unit)
        if name == "token":
            pieces = [piece for row in rows for piece in row.pieces]
            columns.add("token_text", pa.array(pieces, pa.string()), "the text of token")
    return columns.table()


def _layers(rows: Sequence[Row], prompts: np.ndarray, info: dict[str, Any]) -> pa.Table:
    names = [name for name, metric in METRICS.items() if name in rows[0].metrics and "layer" in metric.dims]
    layers = info["layers"] + 1
    lengths = [row.length if names else 0 for row in rows]
    columns = _Columns()
    columns.add("prompt", pa.array(np.repeat(prompts, np.multiply(lengths, layers))), "number of the prompt")
    columns.add("step", pa.array(np.repeat(_ranges(lengths), layers)), "step of the prompt, from 0")
    layer = np.tile(np.arange(layers, dtype=np.int32), sum(lengths))
    columns.add("layer", pa.array(layer), "0 is the embedding, L the last layer")
    for name in names:
        metric = METRICS[name]
        values = np.concatenate([row.metrics[name] for row in rows])
        if "head" in metric.dims:
            array = _head_lists(values, layer >= metric.first_layer, metric)
        else:
            missing = -1 if metric.integer else np.nan
            padded = np.pad(values, ((0, 0), (metric.first_layer, 0)), constant_values=missing)
            array = _nullable(padded.reshape(-1), metric)
        columns.add(name, array, metric.text, metric.unit)
    return columns.table()


def _prompts(rows: Sequence[Row], prompts: np.ndarray) -> pa.Table:
    metas = [json.dumps(plain(row.prompt.meta), ensure_ascii=False) for row in rows]
    columns = _Columns()
    columns.add("prompt", pa.array(prompts), "number of the prompt in the run")
    columns.add("id", pa.array([row.prompt.id for row in rows], pa.string()), "its name in its task")
    columns.add("text", pa.array([row.prompt.text for row in rows], pa.string()), "null if ids were given")
    columns.add("tokens", pa.array([row.prompt_tokens for row in rows], IDS), "the ids that were fed")
    columns.add("pieces", pa.array([row.prompt_pieces for row in rows], STRINGS), "the text of each id")
    images = [[_image_name(image) for image in row.prompt.images] for row in rows]
    columns.add("images", pa.array(images, STRINGS), "the images it is about")
    columns.add("completion", pa.array([row.text for row in rows], pa.string()), "the text drawn, or scored")
    columns.add("length", pa.array([row.length for row in rows], pa.int32()), "number of steps")
    columns.add("stop", pa.array([row.stop for row in rows], pa.string()), "why it ended")
    columns.add("meta", pa.array(metas, pa.string()), "what else its task knows, as JSON")
    return columns.table()


def _image_name(image: Any) -> str:
    return str(image) if isinstance(image, (str, Path)) else type(image).__name__


def _read_metrics(tokens: pa.Table, layers: pa.Table, info: dict[str, Any]) -> dict[str, np.ndarray]:
    found = {}
    for name, metric in METRICS.items():
        if "layer" in metric.dims:
            if name in layers.column_names:
                found[name] = _read_layers(layers[name], metric, info)
        elif "alpha" in metric.dims:
            names = [_alpha_name(name, alpha) for alpha in info["alphas"]]
            if names and names[0] in tokens.column_names:
                found[name] = np.stack([_values(tokens[column], metric) for column in names], axis=1)
        elif name in tokens.column_names:
            found[name] = _values(tokens[name], metric)
    return found


def _read_layers(column: pa.ChunkedArray, metric: Metric, info: dict[str, Any]) -> np.ndarray:
    stored = info["layers"] + 1 - metric.first_layer
    if "head" in metric.dims:
        lists = column.combine_chunks()
        return _values(lists.flatten(), metric).reshape(-1, stored, info["heads"])
    return _values(column, metric).reshape(-1, info["layers"] + 1)[:, metric.first_layer :]


def _values(array: pa.Array | pa.ChunkedArray, metric: Metric) -> np.ndarray:
    if metric.integer:
        array = array.fill_null(-1)
    return array.to_numpy(zero_copy_only=False).copy()  # Arrow's memory is read-only


def _nullable(values: np.ndarray, metric: Metric) -> pa.Array:
    return pa.array(values, mask=values == -1 if metric.integer else np.isnan(values))


def _head_lists(values: np.ndarray, present: np.ndarray, metric: Metric) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(present * values.shape[-1])]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, _nullable(values.reshape(-1), metric), mask=pa.array(~present))


def _alpha_name(name: str, alpha: float) -> str:
    return f"{name}_{alpha:g}"


def _ranges(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
