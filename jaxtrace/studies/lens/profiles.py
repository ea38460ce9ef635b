"""Profiles: a layer metric through the depth of a model, one profile per answer (arXiv 2502.16570)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxtrace.errors import StudyError
from jaxtrace.schema import QUANTITIES
from jaxtrace.studies._shared.labels import RowLabel
from jaxtrace.traces.depth import row_prediction_depth
from jaxtrace.traces.layers import layer_count, layers_text, present_layers, select_layers, taken_steps
from jaxtrace.traces.requirements import require_metrics
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

EACH = "each"


@dataclass(frozen=True)
class Profiles:
    """Profiles of many answers, possibly of models of different depths.

    Attributes:
      metric: name of the metric, with the order in brackets if it has one.
      unit: unit of the values.
      answers: one row per answer: model, label, group, layers (of the model), steps and prompt_tokens (counts), and
        prediction_depth: mean over steps of the first depth from which on the lens's top-1 is the last layer's, NaN
        without lens metrics.
      values: profile of each answer [W, L], float64: means over each window of its steps with a value, at the traced
        layers that have values of the metric.
      depths: relative depths of each answer's layers [L]: layer / layers of the model, in (0, 1].
      excluded: number of excluded answers by reason.
      partial: number of layers of the profiles of each trace, as `layers_text` gives it, unless these are all.
      recorded: relative depths of all recorded layers [R], also of those without values.
    """

    metric: str
    unit: str
    answers: pd.DataFrame
    values: tuple[Float[np.ndarray, "W L"], ...]
    depths: tuple[Float[np.ndarray, " L"], ...]
    excluded: Mapping[str, int]
    partial: Mapping[str, str]
    recorded: Float[np.ndarray, " R"]

    @property
    def one_depth(self) -> bool:
        """True if all answers have the same layers of models of one depth."""
        return len({tuple(depth) for depth in self.depths}) == 1

    @property
    def labels(self) -> np.ndarray:
        """Class of each answer [n]."""
        return self.answers["label"].to_numpy(str)

    @property
    def groups(self) -> np.ndarray:
        """Group of each answer [n]."""
        return self.answers["group"].to_numpy(str)

    @property
    def ln_lengths(self) -> Float[np.ndarray, "n 2"]:
        """Logarithms of each answer's steps and prompt tokens."""
        return np.log(self.answers[["steps", "prompt_tokens"]].to_numpy(float))

    def grid(self, points: int) -> Float[np.ndarray, " P"]:
        """Return depths that all models cover: the layers' own for one depth, else `points` equally spaced ones.

        The grid starts at the deepest first layer and ends at the least deep last one, so that nothing is extrapolated.
        """
        if self.one_depth:
            return self.depths[0]
        return np.linspace(max(depth[0] for depth in self.depths), min(depth[-1] for depth in self.depths), points)

    def on(self, grid: Float[np.ndarray, " P"]) -> Float[np.ndarray, "n W P"]:
        """Return the profiles at the depths of a grid, interpolated linearly between layers."""
        return np.stack([interpolated(*pair, grid) for pair in zip(self.values, self.depths, strict=True)])


def gather_profiles(
    traces: Mapping[str, Trace],
    metric: str,
    label: RowLabel,
    *,
    group: RowLabel,
    windows: int | str = 1,
    steps: int | None = None,
) -> Profiles:
    """Return the profiles of all answers of some traces.

    Args:
      traces: traces of one run each, by name.
      metric: layer metric; head metrics are averaged over heads. "lens_renyi[2]" is the Rényi entropy of order 2.
      label: class of a row; None excludes the row.
      group: group of a row, such as its prompt or story; one group is never on both sides of a fold.
      windows: number of runs of steps with a value, as equal as possible, each averaged: 1 is the mean over all such
        steps. "each" is one window per such step, for answers of one length.
      steps: number of steps used from the start; shorter answers are excluded. None uses all.

    Raises:
      StudyError: the metric is unknown or was not recorded, windows are "each" for unequal lengths, or no answer is
        usable.
    """
    name, order = parse_metric(metric)
    _check_recorded(traces, name)
    excluded, answers, values, depths, partial = Counter(), [], [], [], {}
    recorded: set[float] = set()
    for where, trace in traces.items():
        layers, counts = np.array(trace.traced_layers, float), set()
        recorded.update((layers / trace.num_layers).tolist())
        column = None if order is None else _order_column(where, trace, order)
        for row in trace.rows:
            row_label, profile = label(trace, row), profile_of(row, name, column)[:steps]
            length = len(profile)
            profile = profile[taken_steps(row, name)[row.prompt_steps :][:steps]]
            present = present_layers(row, name)[1 - QUANTITIES[name].first_layer :]
            profile = select_layers(profile, present)
            if reason := _unusable(row_label, length, profile, windows, steps):
                excluded[reason] += 1
                continue
            answers.append(
                {
                    "model": str(trace.info.get("model", where)),
                    "label": row_label,
                    "group": group(trace, row),
                    "layers": trace.num_layers,
                    "steps": length,
                    "prompt_tokens": len(row.prompt_tokens),
                    "prediction_depth": _prediction_depth(row, trace, steps),
                }
            )
            values.append(profile)
            depths.append(layers[present] / trace.num_layers)
            counts.add(layer_count(row, name))
        if text := layers_text(counts, trace.num_layers):
            partial[where] = text
    if not answers:
        raise StudyError(f"no usable answer: {describe_counts(excluded) or 'the traces hold none'}; give other traces")
    lengths = {len(value) for value in values}
    if windows == EACH and len(lengths) > 1:
        raise StudyError(
            f"windows 'each': answers have {min(lengths)} to {max(lengths)} steps; fix the number with --steps"
        )
    if min(len(depth) for depth in depths) < 2:
        stride = "a smaller --layer-stride or --lens-stride" if name.startswith("lens_") else "a smaller --layer-stride"
        raise StudyError(f"{metric}: one layer makes no profile; trace more of them ({stride})")
    values = tuple(windowed(value, windows) for value in values)
    unit, frame = QUANTITIES[name].unit, pd.DataFrame(answers)
    return Profiles(metric, unit, frame, values, tuple(depths), excluded, partial, np.array(sorted(recorded)))


def parse_metric(metric: str) -> tuple[str, float | None]:
    """Return a metric's name and the order in its brackets; raise StudyError unless it has a value for each layer."""
    match = re.fullmatch(r"(\w+)(?:\[([\w.]+)\])?", metric)
    name, order = match.groups() if match else (metric, None)
    usable = [key for key, quantity in QUANTITIES.items() if "layer" in quantity.dims and not quantity.integer]
    if name not in usable or (order is not None) != ("alpha" in QUANTITIES[name].dims):
        names = ", ".join(f"{key}[2]" if "alpha" in QUANTITIES[key].dims else key for key in usable)
        raise StudyError(f"{metric}: is no metric with a value for each layer; choose one of: {names}")
    try:
        return name, None if order is None else float(order)
    except ValueError:
        raise StudyError(f"{metric}: '{order}' is no order of a Rényi entropy; write {name}[2]") from None


def profile_of(row: Row, name: str, column: int | None = None) -> Float[np.ndarray, "T L"]:
    """Return a metric of the layers from 1 on, at the steps after a row's prompt.

    Args:
      name: metric; head metrics are averaged over heads.
      column: index of the Rényi order, for metrics with orders.
    """
    metric, values = QUANTITIES[name], row.metrics[name][row.prompt_steps :].astype(float)
    values = values[:, 1:] if metric.first_layer == 0 else values
    if "head" in metric.dims:
        values = values.mean(-1)
    return values if column is None else values[..., column]


def windowed(profile: Float[np.ndarray, "T L"], windows: int | str) -> Float[np.ndarray, "W L"]:
    """Return means over runs of steps of lengths as equal as possible, longer ones first."""
    count = len(profile) if windows == EACH else int(windows)
    return np.stack([part.mean(0) for part in np.array_split(profile, count)])


def interpolated(
    values: Float[np.ndarray, "*w L"], depth: Float[np.ndarray, " L"], grid: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "*w P"]:
    """Interpolate values at `depth` linearly at the depths of `grid`."""
    return np.apply_along_axis(lambda profile: np.interp(grid, depth, profile), -1, values)


def describe_counts(counts: Mapping[str, int]) -> str:
    """Join reasons and their counts: "3 shorter than 8 steps, 1 with NaN"."""
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _prediction_depth(row: Row, trace: Trace, steps: int | None) -> float:
    if "lens_top1" not in row.metrics:
        return np.nan
    depth, taken = row_prediction_depth(row, trace.traced_layers), taken_steps(row, "lens_top1")
    window = slice(row.prompt_steps, None if steps is None else row.prompt_steps + steps)
    return float(depth[window][taken[window]].mean()) / trace.num_layers


def _check_recorded(traces: Mapping[str, Trace], name: str) -> None:
    if name != "lens_renyi":
        return require_metrics(traces, name)
    for where, trace in traces.items():
        if not trace.info.get("lens_renyi"):
            raise StudyError(f"{where}: has no lens_renyi; trace it again with --lens-renyi")


def _order_column(where: str, trace: Trace, order: float) -> int:
    alphas = trace.info["alphas"]
    if order not in alphas:
        recorded = ", ".join(f"{alpha:g}" for alpha in alphas)
        raise StudyError(
            f"{where}: has no Rényi entropy of order {order:g}, only {recorded}; trace it with more alphas"
        )
    return alphas.index(order)


def _unusable(label: str | None, length: int, profile: np.ndarray, windows: int | str, steps: int | None) -> str:
    """Return the reason to exclude an answer of `length` steps, or "" for a usable one."""
    if label is None:
        return "without a label"
    least = max(1 if windows == EACH else int(windows), steps or 1)
    if length < least:
        return f"shorter than {least} step{'s' * (least > 1)}"
    if not profile.shape[1]:
        return "without a layer that has values"
    if len(profile) < (least := 1 if windows == EACH else int(windows)):
        return f"with values at fewer than {least} step{'s' * (least > 1)}"
    return "" if np.isfinite(profile).all() else "with NaN"
