"""Traces in memory: one `Row` per prompt, and the `Trace` that gathers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jaxtrace.tasks.prompt import Prompt
from jaxtrace.tracing.schema import METRICS


@dataclass(frozen=True)
class Row:
    """The trace of one prompt.

    Attributes:
      prompt: what was traced.
      prompt_tokens: int32 [P], the ids that were fed.
      prompt_pieces: the text of each of them.
      metrics: name → array [steps, …] as `schema.METRICS` lays it out (layers from `first_layer`, heads last).
      pieces: the text of each `token` of `metrics`, "" where there is none.
      text: the completion decoded as a whole (generate), or the text that was scored.
      stop: why it ended: "stop_token", "length", "repeats", or "scored"; "not_finite" where the model's logits were
        NaN or infinite: no token is drawn from these (−1), and entropies are NaN.
    """

    prompt: Prompt
    prompt_tokens: np.ndarray
    prompt_pieces: tuple[str, ...]
    metrics: dict[str, np.ndarray]
    pieces: tuple[str, ...]
    text: str
    stop: str

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

    def to_xarray(self) -> xr.Dataset:
        """All metrics with labelled dims (prompt, step, layer, head, alpha).

        `layer` runs 0…L; a metric without a value for the embedding is NaN (or −1) at layer 0. Steps a prompt
        did not reach are NaN (or −1); `length` says how many it has. Units are in each variable's attributes.
        """
        layers, heads = self.info["layers"], self.info["heads"]
        sizes = {"layer": layers + 1, "head": heads, "alpha": len(self.info["alphas"])}
        steps = max((row.length for row in self.rows), default=0)
        names = [name for name in METRICS if self.rows and name in self.rows[0].metrics]
        variables: dict[str, Any] = {"length": ("prompt", np.array([row.length for row in self.rows], np.int32))}
        for name in names:
            metric = METRICS[name]
            shape = (len(self.rows), steps, *(sizes[dim] for dim in metric.dims))
            array = np.full(shape, -1, np.int32) if metric.integer else np.full(shape, np.nan, np.float32)
            skip = metric.first_layer if "layer" in metric.dims else 0
            for i, row in enumerate(self.rows):
                target = array[i, : row.length]
                (target[:, skip:] if skip else target)[...] = row.metrics[name]
            attributes = {"units": metric.unit, "long_name": metric.text}
            variables[name] = (("prompt", "step", *metric.dims), array, attributes)
        coords = {
            "prompt": np.arange(len(self.rows)),
            "prompt_id": ("prompt", np.array([row.prompt.id for row in self.rows], dtype=str)),
            "step": np.arange(steps),
            "layer": np.arange(layers + 1),
            "head": np.arange(heads),
            "alpha": np.array(self.info["alphas"], np.float32),
        }
        return xr.Dataset(variables, coords)

    def save(self, directory: str | Path) -> None:
        """Writes Parquet tables and `run.json`; `StoreError` if the directory already holds a run."""
        from jaxtrace.store.writer import save

        save(self, directory)
