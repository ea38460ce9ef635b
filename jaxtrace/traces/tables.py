"""Rows of a trace as three Arrow tables, and back.

A missing value (NaN, or −1 for an integer metric) is null, so a mean in SQL ignores it. The metadata of every field
holds its definition and units.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxtrace.errors import StoreError
from jaxtrace.prompts import Prompt
from jaxtrace.schema import METRICS, Metric, recorded_layers
from jaxtrace.settings.probes import PROBE_OPTIONS
from jaxtrace.traces.checking import Mismatch, check_rows
from jaxtrace.traces.columns import column_values, list_column, list_values, nullable_column, round_to_float16
from jaxtrace.traces.raw import raw_columns, raw_metrics
from jaxtrace.traces.row import Row
from jaxtrace.traces.run_json import to_json_value

# Keys of `Trace.info` that determine the columns.
SHAPE = ("mode", "layers", "heads", *PROBE_OPTIONS)
PRECISIONS = ("float32", "float16")
STEP = "step: 0 draws the first token, or is the first position (score); prompt positions before the draws are negative"
STRINGS, IDS = pa.list_(pa.string()), pa.list_(pa.int32())


def to_tables(
    numbered: Sequence[tuple[int, Row]], info: dict[str, Any], precision: str = "float32"
) -> dict[str, pa.Table]:
    """Return the tables "tokens", "layers" and "prompts" of some rows.

    Args:
      numbered: (number of the prompt, row) pairs, at least one; all rows have the same metrics.
      info: `Trace.info`; its mode, layers, alphas and raw material are read.
      precision: "float32", or "float16" to round floats to the 11 significant bits of a float16. Rounded floats keep
        the range and the type of float32, which every reader knows; the zeroed bits vanish in compression.

    Returns:
      tokens: one row per prompt and step. `position` is the index in the sequence of the token whose next-token
        distribution this is: prompt length − 1 + step (generate), step (score). Raw material is in lists.
      layers: one row per prompt, step and layer (0 and the traced layers); no row without layer metrics. Metrics of
        heads are in lists.
      prompts: one row per prompt.

    Raises:
      StoreError: a row is one that could not be read back, such as one with an unknown stop reason.
    """
    prompts, rows = np.array([number for number, _ in numbered], np.int32), [row for _, row in numbered]
    stored = {"float32": lambda table: table, "float16": round_to_float16}[precision]
    tables = {
        "tokens": stored(_tokens(rows, prompts, info)),
        "layers": stored(_layers(rows, prompts, info)),
        "prompts": _prompts(rows, prompts, info),
    }
    try:
        check_rows(tables, info)
    except Mismatch as error:
        raise StoreError(f"{error.table}: {error}; correct the rows or Trace.info") from None
    return tables


def from_tables(
    tables: Mapping[str, pa.Table], info: dict[str, Any], places: Mapping[str, Any] | None = None
) -> list[tuple[int, Row]]:
    """Return (prompt number, row) pairs in the order of the table "prompts"; the inverse of `to_tables`.

    Args:
      tables: tables "tokens", "layers" and "prompts" of some rows.
      info: `Trace.info` of their run.
      places: place of each table, for messages; None for their names.

    Raises:
      StoreError: a table disagrees with `info` or with another one, or holds a value that no run writes.
    """
    try:
        check_rows(tables, info)
        return _read_rows(tables, info)
    except Mismatch as error:
        place = error.table if places is None else places[error.table]
        raise StoreError(f"{place}: {error}; restore it from a copy") from None


def _read_rows(tables: Mapping[str, pa.Table], info: dict[str, Any]) -> list[tuple[int, Row]]:
    metrics = _read_metrics(tables["tokens"], tables["layers"], info)
    prompts = tables["prompts"].to_pylist()
    pieces = tables["tokens"]["token_text"].to_pylist()
    stops = np.cumsum([prompt["length"] for prompt in prompts], dtype=np.int64)
    rows = []
    for prompt, stop in zip(prompts, stops, strict=True):
        steps = slice(stop - prompt["length"], stop)
        messages = tuple(_parsed(prompt, "messages", list)) if prompt.get("messages") else None
        row = Row(
            prompt=Prompt(
                text=prompt["text"],
                tokens=tuple(prompt["tokens"]) if prompt["text"] is None and messages is None else None,
                id=prompt["id"],
                images=tuple(prompt["images"]),
                meta=_parsed(prompt, "meta", dict),
                messages=messages,
            ),
            prompt_tokens=np.array(prompt["tokens"], np.int32),
            prompt_pieces=tuple(prompt["pieces"]),
            metrics={name: values[steps] for name, values in metrics.items()}
            | raw_metrics(tables["tokens"].slice(steps.start, prompt["length"]), info),
            pieces=tuple(pieces[steps]),
            text=prompt["completion"],
            stop=prompt["stop"],
            prompt_steps=prompt.get("prompt_steps", 0),
        )
        rows.append((prompt["prompt"], row))
    return rows


def _parsed(prompt: dict[str, Any], name: str, kind: type) -> Any:
    """Return the value of a column that holds JSON."""
    try:
        value = json.loads(prompt[name])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise Mismatch("prompts", f"{name} of prompt {prompt['prompt']} is {prompt[name]!r:.60}, which no run writes")
    return value


class _Columns:
    """Columns with their definitions, to be assembled into a table."""

    def __init__(self) -> None:
        self.fields: list[pa.Field] = []
        self.arrays: list[pa.Array] = []

    def add(self, name: str, array: pa.Array, text: str, unit: str = "") -> None:
        self.fields.append(pa.field(name, array.type, metadata={"definition": text, "units": unit}))
        self.arrays.append(array)

    def table(self) -> pa.Table:
        return pa.Table.from_arrays(self.arrays, schema=pa.schema(self.fields))


def _tokens(rows: Sequence[Row], prompts: np.ndarray, info: dict[str, Any]) -> pa.Table:
    lengths = [row.length for row in rows]
    last = [len(row.prompt_tokens) - 1 if info["mode"] == "generate" else 0 for row in rows]
    first = [place - row.prompt_steps for place, row in zip(last, rows, strict=True)]
    positions = [start + np.arange(length, dtype=np.int32) for start, length in zip(first, lengths, strict=True)]
    columns = _Columns()
    columns.add("prompt", pa.array(np.repeat(prompts, lengths)), "number of the prompt in the run")
    columns.add("step", pa.array(_steps(rows)), STEP)
    position = pa.array(np.concatenate(positions))
    columns.add("position", position, "index in the sequence of the token whose next-token distribution this is")
    for name, metric in METRICS.items():
        if name not in rows[0].metrics or "layer" in metric.dims:
            continue
        values = np.concatenate([row.metrics[name] for row in rows])
        if metric.dims == ("alpha",):
            for i, alpha in enumerate(info["alphas"]):
                text = f"Rényi entropy of order {alpha:g} of the next-token distribution"
                columns.add(_alpha_name(name, alpha), nullable_column(values[:, i], metric), text, metric.unit)
        else:
            columns.add(name, nullable_column(values, metric), metric.definition, metric.unit)
        if name == "token":
            pieces = [piece for row in rows for piece in row.pieces]
            columns.add("token_text", pa.array(pieces, pa.string()), "text of the token")
    for column in raw_columns(rows, positions, info):
        columns.add(*column)
    return columns.table()


def _layers(rows: Sequence[Row], prompts: np.ndarray, info: dict[str, Any]) -> pa.Table:
    names = [name for name, metric in METRICS.items() if name in rows[0].metrics and "layer" in metric.dims]
    numbers = np.array([0, *_chosen(info)], np.int32)
    layers = len(numbers)
    lengths = [row.length if names else 0 for row in rows]
    steps = _steps(rows) if names else np.empty(0, np.int32)
    columns = _Columns()
    columns.add("prompt", pa.array(np.repeat(prompts, np.multiply(lengths, layers))), "number of the prompt in the run")
    columns.add("step", pa.array(np.repeat(steps, layers)), STEP)
    layer = np.tile(numbers, sum(lengths))
    columns.add("layer", pa.array(layer), "0 is the embedding, L the last layer")
    for name in names:
        metric = METRICS[name]
        values = np.concatenate([row.metrics[name] for row in rows])
        if "head" in metric.dims:
            present = layer >= metric.first_layer
            array = list_column(values, metric, present * values.shape[-1], present)
        else:
            missing = -1 if metric.integer else np.nan
            padded = np.pad(values, ((0, 0), (metric.first_layer, 0)), constant_values=missing)
            array = nullable_column(padded.reshape(-1), metric)
        columns.add(name, array, metric.definition, metric.unit)
    return columns.table()


def _prompts(rows: Sequence[Row], prompts: np.ndarray, info: dict[str, Any]) -> pa.Table:
    metas = [json.dumps(to_json_value(row.prompt.meta), ensure_ascii=False) for row in rows]
    columns = _Columns()
    columns.add("prompt", pa.array(prompts), "number of the prompt in the run")
    columns.add("id", pa.array([row.prompt.id for row in rows], pa.string()), "name of the prompt in its task")
    columns.add(
        "text",
        pa.array([row.prompt.text for row in rows], pa.string()),
        "text of the prompt; null if it was given as ids or messages",
    )
    chats = [None if row.prompt.messages is None else json.dumps(row.prompt.messages) for row in rows]
    columns.add("messages", pa.array(chats, pa.string()), "messages of the prompt, as JSON; null without them")
    columns.add("tokens", pa.array([row.prompt_tokens for row in rows], IDS), "token ids that were fed")
    columns.add("pieces", pa.array([row.prompt_pieces for row in rows], STRINGS), "text of each token")
    images = [[_image_name(image) for image in row.prompt.images] for row in rows]
    columns.add("images", pa.array(images, STRINGS), "images of the prompt")
    columns.add("completion", pa.array([row.text for row in rows], pa.string()), "drawn text, or scored text")
    columns.add("length", pa.array([row.length for row in rows], pa.int32()), "number of steps")
    if info.get("prompt_positions"):
        prompt_steps = pa.array([row.prompt_steps for row in rows], pa.int32())
        columns.add("prompt_steps", prompt_steps, "number of steps before the first draw")
    columns.add("stop", pa.array([row.stop for row in rows], pa.string()), "reason for the end")
    columns.add("meta", pa.array(metas, pa.string()), "data of its task, as JSON")
    return columns.table()


def _image_name(image: Any) -> str:
    return str(image) if isinstance(image, (str, Path)) else type(image).__name__


def _read_metrics(tokens: pa.Table, layers: pa.Table, info: dict[str, Any]) -> dict[str, np.ndarray]:
    metrics = {}
    for name, metric in METRICS.items():
        if "layer" in metric.dims:
            if name in layers.column_names:
                metrics[name] = _read_layers(layers[name], metric, info)
        elif "alpha" in metric.dims:
            names = [_alpha_name(name, alpha) for alpha in info["alphas"]]
            if names and names[0] in tokens.column_names:
                metrics[name] = np.stack([column_values(tokens[column], metric) for column in names], axis=1)
        elif name in tokens.column_names:
            metrics[name] = column_values(tokens[name], metric)
    return metrics


def _read_layers(column: pa.ChunkedArray, metric: Metric, info: dict[str, Any]) -> np.ndarray:
    layers = len(_chosen(info)) + 1
    if "head" in metric.dims:
        return list_values(column, metric).reshape(-1, layers - metric.first_layer, info["heads"])
    return column_values(column, metric).reshape(-1, layers)[:, metric.first_layer :]


def _chosen(info: dict[str, Any]) -> tuple[int, ...]:
    return recorded_layers(info["layers"], info)


def _alpha_name(name: str, alpha: float) -> str:
    return f"{name}_{alpha:g}"


def _steps(rows: Sequence[Row]) -> np.ndarray:
    return np.concatenate([np.arange(row.length, dtype=np.int32) - np.int32(row.prompt_steps) for row in rows])
