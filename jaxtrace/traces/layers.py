"""Layers that have values of a metric, and means over them.

All metrics of a row share one axis of layers: those where any of them is recorded. A layer where another metric was
recorded, and a layer without attention weights or without experts, or one that is skipped for lack of an image, has no
value (NaN, or −1 for an integer metric) at any step of a row. A mean over layers excludes such layers and names the
number of the others.

With `lens_every`, the lens has values at some steps only. The other steps have no value at any layer, though their
logits are finite; a mean over steps excludes them (`taken_steps`). Any other value that is missing at some steps only,
or in a row whose logits were never finite, is a fault of the numbers: the mean is missing there too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxtrace.schema import QUANTITIES, layers_of_metric
from jaxtrace.traces.row import Row

LayerCount = tuple[int, int]  # numbers of the layers that have values, and of the recorded layers


def present_layers(row: Row, name: str) -> Bool[np.ndarray, " L"]:
    """Return True for each entry of a metric's layer axis that has a value at any step with finite logits.

    All entries are present in a row without such a step.
    """
    values, steps = row.metrics[name], np.flatnonzero(_finite_steps(row))

    def absent(steps: np.ndarray) -> np.ndarray:
        missing = values[steps] < 0 if QUANTITIES[name].integer else np.isnan(values[steps])
        return np.asarray(missing.all(axis=(0, *range(2, values.ndim))))

    if not len(steps) or not absent(steps[:1]).any():  # one step is enough where no layer is absent
        return np.ones(values.shape[1], bool)
    return ~absent(steps)


def taken_steps(row: Row, name: str) -> Bool[np.ndarray, " steps"]:
    """Return False for each step where a metric of layers was not taken: it has no value, and finite logits."""
    values = row.metrics[name]
    missing = values < 0 if QUANTITIES[name].integer else np.isnan(values)
    return ~(missing.all(axis=tuple(range(1, values.ndim))) & _finite_steps(row))


def on_layers(
    metrics: Mapping[str, np.ndarray], num_layers: int, recorded: Sequence[int], options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return metrics [steps, own layers, …] on the axis of the recorded layers, missing at those that are not theirs.

    Args:
      metrics: metrics of a row, by name.
      num_layers: number of layers of the model.
      recorded: layers of the axis, from 1.
      options: options of `Probes` by name.
    """
    spread = dict(metrics)
    for name, values in metrics.items():
        metric = QUANTITIES[name]
        if "layer" not in metric.dims or (own := layers_of_metric(name, num_layers, options)) == tuple(recorded):
            continue
        before = 1 - metric.first_layer  # an entry of the embedding
        places = [*range(before), *np.searchsorted(recorded, own) + before]
        shape = (len(values), before + len(recorded), *values.shape[2:])
        spread[name] = np.full(shape, -1 if metric.integer else np.nan, values.dtype)
        spread[name][:, places] = values
    return spread


def present_values(row: Row, name: str) -> np.ndarray:
    """Return a metric of a row without the layers that have no values of it; all of it if it is no metric of layers."""
    values = row.metrics[name]
    return select_layers(values, present_layers(row, name)) if "layer" in QUANTITIES[name].dims else values


def select_layers(values: Shaped[np.ndarray, "T L ..."], present: Bool[np.ndarray, " L"]) -> np.ndarray:
    """Return the present layers, in the order of memory that a mean's last bit depends on."""
    return values if present.all() else np.compress(present, values, axis=1)


def layer_mean(row: Row, name: str) -> Float[np.ndarray, " steps"]:
    """Return the mean of a metric at each step over heads and the layers that have values; NaN if there are none."""
    values = present_values(row, name)
    values = values.reshape(row.length, int(np.prod(values.shape[1:])))
    return values.mean(1) if values.shape[1] else np.full(row.length, np.nan)


def layer_count(row: Row, name: str) -> LayerCount | None:
    """Return the numbers of layers, the embedding aside, that a mean over layers includes and could include.

    None for a row without a step with finite logits, and for a metric that is not of layers.
    """
    metric = QUANTITIES[name]
    if "layer" not in metric.dims or not _finite_steps(row).any():
        return None
    present = present_layers(row, name)[1 - metric.first_layer :]
    return int(present.sum()), len(present)


def layers_text(counts: Iterable[LayerCount | None], num_layers: int) -> str:
    """Return over how many layers a mean is: "12 of 48 layers", or "8 to 10 of 10 layers" for rows that differ.

    Args:
      counts: counts of the rows of one model, from `layer_count`.
      num_layers: number of layers of the model.

    Returns:
      The text; "" if each row has values in all recorded layers.
    """
    known = {count for count in counts if count is not None}
    if all(present == recorded for present, recorded in known):
        return ""
    low, high = min(known)[0], max(known)[0]
    recorded = max(recorded for _, recorded in known)
    number = str(low) if low == high else f"{low} to {high}"
    return f"{number} of {recorded} {'recorded ' * (recorded < num_layers)}layers"


def layers_note(what: str, text: str) -> str:
    """Return a sentence that says over how many layers means are.

    Args:
      what: names of the metrics.
      text: number of layers, from `layers_text`.
    """
    return f"{what}: means over {text}; the others have no values."


def _finite_steps(row: Row) -> Bool[np.ndarray, " steps"]:
    """Return True for each step whose logits were finite."""
    if "entropy" in row.metrics:
        return np.isfinite(row.metrics["entropy"])
    return (row.metrics["token"] >= 0) | (row.stop != "not_finite")
