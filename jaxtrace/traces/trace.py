"""Traces in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jaxtrace.schema import METRICS_VERSION, QUANTITIES, layers_of_metric, recorded_layers
from jaxtrace.traces.row import Row
from jaxtrace.traces.writer import TraceWriter

ROWS_PER_PART = 64


@dataclass(frozen=True)
class Trace:
    """The rows of a run, in the order of its prompts.

    Attributes:
      rows: one `Row` per prompt.
      info: description of the run: "mode" ("generate" or "score"), "layers", "heads", "alphas", model, settings,
        versions.
    """

    rows: Sequence[Row]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """Completions (generate) or texts (score)."""
        return [row.text for row in self.rows]

    @property
    def metrics_versions(self) -> tuple[int, ...]:
        """Values of `schema.METRICS_VERSION` by whose definitions the rows were measured, each once."""
        return (METRICS_VERSION,)

    @property
    def num_layers(self) -> int:
        """Number of layers of the model."""
        return self.info["layers"]

    @property
    def traced_layers(self) -> tuple[int, ...]:
        """Layers, from 1, where any metric was recorded."""
        return recorded_layers(self.num_layers, self.info)

    def layers_of(self, metric: str) -> tuple[int, ...]:
        """Return the layers, from 1, where a metric of layers was recorded."""
        return layers_of_metric(metric, self.num_layers, self.info)

    @property
    def lengths(self) -> list[int]:
        """Number of steps of each row."""
        return [row.length for row in self.rows]

    @property
    def prompt_steps(self) -> list[int]:
        """Number of steps of each row that are prompt positions."""
        return [row.prompt_steps for row in self.rows]

    def to_xarray(self) -> xr.Dataset:
        """Return all metrics with labelled dims (prompt, step, layer, head, alpha), and raw material with its own dims.

        `layer` holds 0 and the traced layers; a metric without a value for the embedding is NaN (or −1) at layer 0.
        The attribute `layers` of a metric of layers holds those where it was recorded; it is missing at the others.
        Steps that a prompt did not reach are NaN (or −1); `length` holds the number of its steps. Step 0 draws the
        first token; recorded prompt positions before it are at −1, −2, …. Each variable's attributes hold its units.
        """
        layers, heads = (0, *self.traced_layers), self.info["heads"]
        sizes = {"layer": len(layers), "head": heads, "alpha": len(self.info["alphas"])}
        lengths, prompt_steps = np.array(self.lengths, int), np.array(self.prompt_steps, int)
        first = -prompt_steps.max(initial=0)
        steps = max(lengths - prompt_steps, default=0) - first
        arrays: dict[str, np.ndarray] = {}
        ids = []
        for i, row in enumerate(self.rows):
            ids.append(row.prompt.id)
            for name, values in row.metrics.items():
                metric = QUANTITIES[name]
                missing = np.int32(-1) if metric.integer else np.float32(np.nan)
                shape = [sizes.get(dim, size) for dim, size in zip(metric.dims, values.shape[1:], strict=True)]
                if name not in arrays:
                    arrays[name] = np.full((len(lengths), steps, *shape), missing)
                elif shape and shape[-1] > arrays[name].shape[-1]:  # positions
                    wider = [(0, 0)] * (arrays[name].ndim - 1) + [(0, shape[-1] - arrays[name].shape[-1])]
                    arrays[name] = np.pad(arrays[name], wider, constant_values=missing)
                skip = metric.first_layer if "layer" in metric.dims else 0
                start = -first - row.prompt_steps
                target = arrays[name][i, start : start + row.length]
                if "key" in metric.dims:
                    target = target[..., : values.shape[-1]]
                (target[:, skip:] if skip else target)[...] = values
        variables: dict[str, Any] = {"length": ("prompt", lengths.astype(np.int32))}
        for name, array in arrays.items():
            attributes: dict[str, Any] = {"units": QUANTITIES[name].unit, "long_name": QUANTITIES[name].definition}
            if "layer" in QUANTITIES[name].dims:
                attributes["layers"] = [*range(1 - QUANTITIES[name].first_layer), *self.layers_of(name)]
            variables[name] = (("prompt", "step", *QUANTITIES[name].dims), array, attributes)
        coords = {
            "prompt": np.arange(len(lengths)),
            "prompt_id": ("prompt", np.array(ids, dtype=str)),
            "step": np.arange(first, first + steps),
            "layer": np.array(layers),
            "head": np.arange(heads),
            "alpha": np.array(self.info["alphas"], np.float32),
        }
        if "residuals" in arrays:
            coords["residual"] = np.array(self.info["residuals"])
        if "attention_rows" in arrays:
            row_layers, row_heads = np.array(self.info["attention_rows"]).T
            coords |= {"row_layer": ("row", row_layers), "row_head": ("row", row_heads)}
        return xr.Dataset(variables, coords)

    def save(self, root: str | Path, *, precision: str = "float32") -> None:
        """Write Parquet tables and `run.json`. An incomplete trace stays marked as incomplete.

        Args:
          root: new or empty directory, or its fsspec URL.
          precision: "float32", or "float16" for floats rounded to 11 significant bits.

        Raises:
          StoreError: the directory holds a run or other files, or cannot be written.
        """
        info = {key: value for key, value in self.info.items() if key != "complete"}
        writer = TraceWriter(
            root, info, precision=precision, metrics_version=min(self.metrics_versions), prompts=len(self.rows)
        )
        for start in range(0, len(self.rows), ROWS_PER_PART):
            writer.write([*enumerate(self.rows[start : start + ROWS_PER_PART], start)])
        if self.info.get("complete", True):
            writer.close()
