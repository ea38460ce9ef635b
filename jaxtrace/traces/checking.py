"""Comparison of stored tables with the description of their run, before they are read."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jaxtrace.schema import METRICS, Metric, recorded_layers
from jaxtrace.traces.row import STOPS

# Metrics that every run has if it recorded their group. One that is added later is missing in older runs.
SINCE_FIRST = [
    "token",
    "logprob",
    "entropy",
    "varentropy",
    "top1_prob",
    "top1_top2_gap",
    "attention_entropy",
    "attention_varentropy",
    "attention_entropy_normalized",
    "attention_entropy_no_sink",
    "sink_mass",
    "hdi",
    "head_jsd",
    "lens_entropy",
    "lens_varentropy",
    "lens_kl",
    "lens_top1",
    "lens_top1_prob",
    "hidden_norm",
    "hidden_delta_layer",
    "hidden_delta_step",
    "hidden_cosine_layer",
    "router_entropy",
    "router_top_mass",
]
INTEGER, FLOAT, TEXT = pa.int32(), pa.float32(), pa.string()
KEYS = {
    "tokens": {"prompt": INTEGER, "step": INTEGER, "position": INTEGER, "token_text": TEXT},
    "layers": {"prompt": INTEGER, "step": INTEGER, "layer": INTEGER},
    "prompts": {
        "prompt": INTEGER,
        "id": TEXT,
        "text": TEXT,
        "tokens": pa.list_(INTEGER),
        "images": pa.list_(TEXT),
        "completion": TEXT,
        "length": INTEGER,
        "stop": TEXT,
        "meta": TEXT,
    },
}
OPTIONAL = {"messages": TEXT, "prompt_steps": INTEGER}
NULLABLE = {"text", "messages"}
RAW_COLUMN = re.compile(r"renyi_.*|residual_\d+|attention_\d+_\d+|top_ids|top_logprobs|lens_renyi|experts")


class Mismatch(ValueError):
    """A table that disagrees with its run.

    Attributes:
      table: name of the table.
    """

    def __init__(self, table: str, problem: str) -> None:
        super().__init__(problem)
        self.table = table


def check_columns(table: str, schema: pa.Schema, info: Mapping[str, Any]) -> None:
    """Compare the names and types of a table's columns with `Trace.info`.

    Raises:
      Mismatch: a column is missing, repeated or of another type, or holds raw material or an order that the run lacks.
    """
    groups = ("", *(info.get("probes") or ()))
    needed = dict(KEYS[table])
    known = {name: _type(metric) for name, metric in METRICS.items() if ("layer" in metric.dims) == (table == "layers")}
    if table == "prompts":
        known = OPTIONAL
        needed |= {"prompt_steps": INTEGER} if info.get("prompt_positions") else {}
    else:
        needed |= {name: known[name] for name in SINCE_FIRST if name in known and METRICS[name].group in groups}
    if table == "tokens":
        needed |= _raw_columns(info)
        orders = {f"renyi_{alpha:g}": FLOAT for alpha in info["alphas"]}
        if "output" in groups or any(name in orders for name in schema.names):
            needed |= orders
        for name in schema.names:
            if RAW_COLUMN.fullmatch(name) and name not in {*needed, *info.get("step_metrics", ())}:
                raise Mismatch(table, f"has the column {name}, which its run did not record")
    for name, kind in (known | needed).items():
        count = schema.names.count(name)
        if count > 1 or (not count and name in needed):
            raise Mismatch(table, f"has {count} columns {name} instead of one")
        if count and schema.field(name).type != kind:
            raise Mismatch(table, f"has the column {name} as {schema.field(name).type}, not as {kind}")


def check_values(name: str, table: pa.Table, columns: Iterable[str]) -> None:
    """Check that a table has some columns, without missing values.

    Raises:
      Mismatch: a column is missing or of another type, or lacks a value.
    """
    for column in columns:
        kind, index = (KEYS[name] | OPTIONAL).get(column), table.schema.get_field_index(column)
        if index < 0 or (kind is not None and table.schema.field(index).type != kind):
            raise Mismatch(name, f"lacks the column {column}" + f" of type {kind}" * (kind is not None))
        values = table[column]
        lists = pa.types.is_list(values.type)
        if column not in NULLABLE and (values.null_count or (lists and values.combine_chunks().flatten().null_count)):
            raise Mismatch(name, f"lacks a value of the column {column}")


def check_rows(tables: Mapping[str, pa.Table], info: Mapping[str, Any]) -> None:
    """Compare the rows of the tables of one part with one another and with `Trace.info`.

    Raises:
      Mismatch: a value is missing or impossible, or a row or the entry of a list is missing or superfluous.
    """
    for name, table in tables.items():
        check_columns(name, table.schema, info)
        check_values(name, table, KEYS[name])
    prompts, tokens, layers = (tables[name] for name in ("prompts", "tokens", "layers"))
    lengths, fed = _ints(prompts["length"]), _sizes(prompts["tokens"])
    skipped = _ints(prompts["prompt_steps"]) if info.get("prompt_positions") else np.zeros_like(lengths)
    numbers = _ints(prompts["prompt"])
    for name, wrong in {
        "prompt": (numbers < 0) | (np.unique(numbers, return_counts=True)[1].max(initial=1) > 1),
        "length": (lengths < 0),
        "prompt_steps": (skipped < 0) | (skipped > lengths),
        "stop": ~np.isin(prompts["stop"].to_numpy(), STOPS),
    }.items():
        if wrong.any():
            value = prompts[name].take([int(np.flatnonzero(wrong)[0])]).to_pylist()[0]
            raise Mismatch("prompts", f"{name} is {value!r:.60}, which no run writes")
    steps = int(lengths.sum())
    if len(tokens) != steps:
        raise Mismatch("tokens", f"has {len(tokens)} rows, and its prompts have {steps} steps")
    step = np.arange(steps) - np.repeat(np.cumsum(lengths) - lengths + skipped, lengths)
    first = fed - 1 if info["mode"] == "generate" else np.zeros_like(fed)
    keys = {"prompt": np.repeat(numbers, lengths), "step": step}
    _compare("tokens", tokens, keys | {"position": np.repeat(first, lengths) + step})
    _check_lists(tokens, _ints(tokens["position"]), info)

    numbers = (0, *recorded_layers(info["layers"], info))
    per_step = len(numbers) if set(layers.column_names) - set(KEYS["layers"]) else 0
    if len(layers) != steps * per_step:
        raise Mismatch("layers", f"has {len(layers)} rows, and its run {per_step} for each of {steps} steps")
    keys = {name: np.repeat(values, per_step) for name, values in keys.items()}
    _compare("layers", layers, keys | {"layer": np.tile(numbers, steps if per_step else 0)})
    heads = {layer: np.where(_ints(layers["layer"]) < layer, 0, info["heads"]) for layer in (0, 1)}
    for name in layers.column_names:
        if name in METRICS and "head" in METRICS[name].dims:
            _check_sizes("layers", layers, name, heads[METRICS[name].first_layer])


def _check_lists(tokens: pa.Table, position: np.ndarray, info: Mapping[str, Any]) -> None:
    """Check the lengths of lists of raw material."""
    layers = len(recorded_layers(info["layers"], info))
    for name in _raw_columns(info):
        size = {"top_ids": info.get("top_tokens"), "top_logprobs": info.get("top_tokens")}.get(name)
        if name == "lens_renyi":
            size = layers * len(info["alphas"])
        elif name == "experts":
            size = layers * info["experts"]
        elif name.startswith("attention_"):
            size = position + 1
        elif name.startswith("residual_"):
            size = _sizes(tokens[name])[:1]
        if len(tokens):
            _check_sizes("tokens", tokens, name, size)


def _check_sizes(name: str, table: pa.Table, column: str, sizes: Any) -> None:
    found = _sizes(table[column])
    if (wrong := np.flatnonzero(found != sizes)).size:
        expected = np.broadcast_to(sizes, found.shape)[wrong[0]]
        raise Mismatch(name, f"{column} has a list of {found[wrong[0]]} values instead of {expected}")


def _compare(name: str, table: pa.Table, columns: dict[str, np.ndarray]) -> None:
    for column, expected in columns.items():
        if (wrong := np.flatnonzero(_ints(table[column]) != expected)).size:
            found = table[column][int(wrong[0])].as_py()
            raise Mismatch(name, f"{column} is {found} in row {wrong[0]}, where its run has {expected[wrong[0]]}")


def _sizes(column: Any) -> np.ndarray:
    return _ints(pc.call_function("list_value_length", [column]))


def _ints(column: Any) -> np.ndarray:
    return column.fill_null(0).to_numpy().astype(np.int64)


def _type(metric: Metric) -> pa.DataType:
    kind = INTEGER if metric.integer else FLOAT
    return pa.list_(kind) if "head" in metric.dims else kind


def _raw_columns(info: Mapping[str, Any]) -> dict[str, pa.DataType]:
    names = [f"residual_{layer}" for layer in info.get("residuals", ())]
    names += [f"attention_{layer}_{head}" for layer, head in info.get("attention_rows", ())]
    names += ["top_logprobs"] * bool(info.get("top_tokens")) + ["lens_renyi"] * bool(info.get("lens_renyi"))
    integers = ["top_ids"] * bool(info.get("top_tokens")) + ["experts"] * bool(info.get("experts"))
    return dict.fromkeys(names, pa.list_(FLOAT)) | dict.fromkeys(integers, pa.list_(INTEGER))
