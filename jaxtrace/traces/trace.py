"""Traces in memory: one `Row` per prompt, and the `Trace` that gathers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jaxtrace.prompts import Prompt
from jaxtrace.schema import METRICS_VERSION, QUANTITIES, chosen_layers


@dataclass(frozen=True)
class Row:
    """The trace of one prompt.

    Attributes:
      prompt: what was traced.
      prompt_tokens: int32 [P], the ids that were fed.
      prompt_pieces: the text of each of them.
      metrics: name → array [steps, …] as `schema.QUANTITIES` lays it out; `attention_rows` over positions up to
        the last step's own.
      pieces: the text of each `token` of `metrics`, "" where there is none.
      text: the completion decoded as a whole (generate), or the text that was scored.
      stop: why it ended: "stop_token", "length", "repeats", or "scored"; "not_finite" where the model's logits were
        NaN or infinite: no token is drawn from these (−1), and entropies are NaN.
      prompt_steps: how many of the steps, the first ones, are positions of the prompt whose next token it has itself.
    """

    prompt: Prompt
    prompt_tokens: np.ndarray
    prompt_pieces: tuple[str, ...]
    metrics: dict[str, np.ndarray]
    pieces: tuple[str, ...]
    text: str
    stop: str
    prompt_steps: int = 0

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.metrics["token"])


@dataclass(frozen=True)
class Trace:
    """The traces of some prompts, in the order they were given.

    Attributes:
      rows: one per prompt.
      info: what made it: "mode" ("generate" or "score"), "layers", "heads", "alphas", the model, settings, versions.
    """

    rows: Sequence[Row]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The completions (generate) or texts (score)."""
        return [row.text for row in self.rows]

    @property
    def metrics_versions(self) -> tuple[int, ...]:
        """Values of `schema.METRICS_VERSION` by whose definitions the rows were measured, each once."""
        return (METRICS_VERSION,)

    @property
    def traced_layers(self) -> tuple[int, ...]:
        """The layers, from 1, whose metrics were recorded."""
        return chosen_layers(self.info["layers"], self.info.get("layer_stride", 1))

    @property
    def lengths(self) -> list[int]:
        """The number of steps of each row."""
        return [row.length for row in self.rows]

    @property
    def prompt_steps(self) -> list[int]:
        """How many steps of each row are positions of its prompt."""
        return [row.prompt_steps for row in self.rows]

    def to_xarray(self) -> xr.Dataset:
        """All metrics with labelled dims (prompt, step, layer, head, alpha), and raw material with dims of its own.

        `layer` is 0 and the layers that were traced; a metric without a value for the embedding is NaN (or −1) at layer
        0. Steps a prompt did not reach are NaN (or −1); `length` says how many it has. Step 0 draws the first token;
        positions of the prompt before it, where they were measured, are at −1, −2, …. Units are in each variable's
        attributes.
        """
        layers, heads = (0, *self.traced_layers), self.info["heads"]
        sizes = {"layer": len(layers), "head": heads, "alpha": len(self.info["alphas"])}
        lengths, ahead = np.array(self.lengths, int), np.array(self.prompt_steps, int)
        first = -ahead.max(initial=0)
        steps = max(lengths - ahead, default=0) - first
        arrays: dict[str, np.ndarray] = {}
        ids = []
        for i, row in enumerate(self.rows):
            ids.append(row.prompt.id)
            for name, values in row.metrics.items():
                metric = QUANTITIES[name]
                nothing = np.int32(-1) if metric.integer else np.float32(np.nan)
                shape = [sizes.get(dim, size) for dim, size in zip(metric.dims, values.shape[1:], strict=True)]
                if name not in arrays:
                    arrays[name] = np.full((len(lengths), steps, *shape), nothing)
                elif shape and shape[-1] > arrays[name].shape[-1]:  # positions
                    wider = [(0, 0)] * (arrays[name].ndim - 1) + [(0, shape[-1] - arrays[name].shape[-1])]
                    arrays[name] = np.pad(arrays[name], wider, constant_values=nothing)
                skip = metric.first_layer if "layer" in metric.dims else 0
                start = -first - row.prompt_steps
                target = arrays[name][i, start : start + row.length]
                if "key" in metric.dims:
                    target = target[..., : values.shape[-1]]
                (target[:, skip:] if skip else target)[...] = values
        variables: dict[str, Any] = {"length": ("prompt", lengths.astype(np.int32))}
        for name, array in arrays.items():
            attributes = {"units": QUANTITIES[name].unit, "long_name": QUANTITIES[name].definition}
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
            of_layer, of_head = np.array(self.info["attention_rows"]).T
            coords |= {"row_layer": ("row", of_layer), "row_head": ("row", of_head)}
        return xr.Dataset(variables, coords)

    def save(self, root: str | Path, *, precision: str = "float32") -> None:
        """Writes Parquet tables and `run.json`.

        Args:
          root: a new or empty directory, or its fsspec URL.
          precision: "float32", or "float16" for floats rounded to 11 significant bits.

        Raises:
          StoreError: it already holds a run, or cannot be written.
        """
        from jaxtrace.traces.writer import save

        save(self, root, precision)
