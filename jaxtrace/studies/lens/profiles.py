"""Profiles: how a metric of layers goes through the depth of a model, one for each answer (arXiv 2502.16570)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxtrace.errors import StudyError
from jaxtrace.schema import QUANTITIES
from jaxtrace.studies._shared.traces import require
from jaxtrace.traces.depth import prediction_depth
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.trace import Row, Trace

EACH = "each"
Labelled = Callable[[Trace, Row], str | None]


@dataclass(frozen=True)
class Profiles:
    """The profiles of many answers, perhaps of models of several depths.

    Attributes:
      metric: its name, with the order in brackets where it has one.
      unit: of its values.
      answers: a row per answer: model, label, group, layers (of the model), steps and prompt_tokens (counts), and
        prediction_depth: mean over steps of the first depth from which on the lens's top-1 is the last layer's, NaN
        where lenses were not traced.
      values: of each answer [W, L], float64: means over each window of its steps, at the layers that were traced.
      depths: of each answer [L]: layer / layers of the model, above 0 and up to 1.
      left_out: why answers were left out, and how many.
    """

    metric: str
    unit: str
    answers: pd.DataFrame
    values: tuple[Float[np.ndarray, "W L"], ...]
    depths: tuple[Float[np.ndarray, " L"], ...]
    left_out: Mapping[str, int]

    @property
    def one_depth(self) -> bool:
        """Whether all answers are of the same layers of models of one depth."""
        return len({tuple(depth) for depth in self.depths}) == 1

    def grid(self, points: int) -> Float[np.ndarray, " P"]:
        """Depths that all models have: the layers' own where there is one depth, else `points` equally spaced ones.

        They begin where the model of the deepest first layer does, so that nothing is extrapolated.
        """
        if self.one_depth:
            return self.depths[0]
        return np.linspace(max(depth[0] for depth in self.depths), 1.0, points)

    def on(self, grid: Float[np.ndarray, " P"]) -> Float[np.ndarray, "n W P"]:
        """Profiles at the depths of a grid, linearly between layers."""
        return np.stack(
            [interpolated(value, depth, grid) for value, depth in zip(self.values, self.depths, strict=True)]
        )

    def padded(self) -> Float[np.ndarray, "n W Lmax"]:
        """Profiles layer by layer, zeros after the last one: how many zeros there are tells the model's depth."""
        size = max(value.shape[1] for value in self.values)
        return np.stack([np.pad(value, ((0, 0), (0, size - value.shape[1]))) for value in self.values])


def gather_profiles(
    traces: Mapping[str, Trace],
    metric: str,
    label: Labelled,
    *,
    group: Labelled,
    windows: int | str = 1,
    steps: int | None = None,
) -> Profiles:
    """The profiles of all answers of some traces.

    Args:
      traces: by name, each of one run.
      metric: a metric of layers; of heads the mean. "lens_renyi[2]" is the Rényi entropy of order 2.
      label: of a row: the class it is in; None leaves it out.
      group: of a row: rows of one group (of one prompt, one story) must not be on both sides of a fold.
      windows: steps are cut into so many runs of as equal a length as can be, and each is averaged: 1 is the mean over
        all steps. "each" is a window for every step, for answers of one length.
      steps: only the first so many steps of an answer are used, and shorter answers are left out; None for all.

    Raises:
      StudyError: there is no such metric, or a trace does not have it; windows "each" of unequal lengths; no answer is
        left.
    """
    name, order = parse_metric(metric)
    _check_recorded(traces, name)
    left_out, answers, values, depths = Counter(), [], [], []
    for where, trace in traces.items():
        layers = np.array(trace.traced_layers, float)
        column = None if order is None else _column(where, trace, order)
        for row in trace.rows:
            of, profile = label(trace, row), profile_of(row, name, column)[:steps]
            if reason := _unusable(of, profile, windows, steps):
                left_out[reason] += 1
                continue
            answers.append(
                {
                    "model": str(trace.info.get("model", where)),
                    "label": of,
                    "group": group(trace, row),
                    "layers": trace.info["layers"],
                    "steps": len(profile),
                    "prompt_tokens": len(row.prompt_tokens),
                    "prediction_depth": _prediction_depth(row, trace, steps),
                }
            )
            values.append(profile)
            depths.append(layers / trace.info["layers"])
    if not answers:
        raise StudyError(f"no answer is left: {words(left_out) or 'the traces hold none'}")
    lengths = {len(value) for value in values}
    if windows == EACH and len(lengths) > 1:
        raise StudyError(
            f"windows 'each': answers have {min(lengths)} to {max(lengths)} steps; say how many to use with --steps"
        )
    if min(len(depth) for depth in depths) < 2:
        raise StudyError(f"{metric}: one layer makes no profile; trace more of them (a smaller --layer-stride)")
    values = tuple(windowed(value, windows) for value in values)
    return Profiles(metric, QUANTITIES[name].unit, pd.DataFrame(answers), values, tuple(depths), left_out)


def parse_metric(metric: str) -> tuple[str, float | None]:
    """A metric's name, and the order in its brackets; raises StudyError for one that has no value for each layer."""
    found = re.fullmatch(r"(\w+)(?:\[([\w.]+)\])?", metric)
    name, order = found.groups() if found else (metric, None)
    usable = [key for key, of in QUANTITIES.items() if "layer" in of.dims and not of.integer]
    if name not in usable or (order is not None) != ("alpha" in QUANTITIES[name].dims):
        names = ", ".join(f"{key}[2]" if "alpha" in QUANTITIES[key].dims else key for key in usable)
        raise StudyError(f"{metric}: no metric with a value for each layer; there are: {names}")
    try:
        return name, None if order is None else float(order)
    except ValueError:
        raise StudyError(f"{metric}: '{order}' is no order of a Rényi entropy; write {name}[2]") from None


def profile_of(row: Row, name: str, column: int | None = None) -> Float[np.ndarray, "T L"]:
    """A metric of layers 1 … at the steps after a row's prompt; of heads the mean; `column` of its orders."""
    metric, values = QUANTITIES[name], row.metrics[name][row.prompt_steps :].astype(float)
    values = values[:, 1:] if metric.first_layer == 0 else values
    if "head" in metric.dims:
        values = values.mean(-1)
    return values if column is None else values[..., column]


def windowed(profile: Float[np.ndarray, "T L"], windows: int | str) -> Float[np.ndarray, "W L"]:
    """Means over runs of steps of as equal a length as can be, the longer ones first."""
    count = len(profile) if windows == EACH else int(windows)
    return np.stack([part.mean(0) for part in np.array_split(profile, count)])


def interpolated(
    values: Float[np.ndarray, "*w L"], depth: Float[np.ndarray, " L"], grid: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "*w P"]:
    """Values at `depth` read off, linearly, at the depths of `grid`."""
    return np.apply_along_axis(lambda profile: np.interp(grid, depth, profile), -1, values)


def single_runs(traces: Mapping[str, Trace]) -> dict[str, Trace]:
    """The traces with each run of a dataset of several (a sweep's) as a trace of its own."""
    return dict(pair for name, trace in traces.items() for pair in _runs(name, trace))


def words(counts: Mapping[str, int]) -> str:
    """Reasons and how often each occurs: "3 shorter than 8 steps, 1 with NaN"."""
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _runs(name: str, trace: Trace) -> Iterator[tuple[str, Trace]]:
    runs: Sequence = trace.runs if isinstance(trace, StoredTrace) else ()
    if len(runs) < 2:
        yield name, trace
    else:
        assert isinstance(trace, StoredTrace)
        yield from ((f"{name}/{run.partition}", StoredTrace.of([run], trace.only)) for run in runs)


def _prediction_depth(row: Row, trace: Trace, steps: int | None) -> float:
    if "lens_top1" not in row.metrics:
        return np.nan
    likeliest = row.metrics["lens_top1"][row.prompt_steps :][:steps]
    return float(prediction_depth(likeliest, trace.traced_layers).mean()) / trace.info["layers"]


def _check_recorded(traces: Mapping[str, Trace], name: str) -> None:
    if name != "lens_renyi":
        return require(traces, name)
    for where, trace in traces.items():
        if not trace.info.get("lens_renyi"):
            raise StudyError(f"{where}: has no lens_renyi; trace it again with --lens-renyi")


def _column(where: str, trace: Trace, order: float) -> int:
    alphas = trace.info["alphas"]
    if order not in alphas:
        listed = ", ".join(f"{alpha:g}" for alpha in alphas)
        raise StudyError(
            f"{where}: has no Rényi entropy of order {order:g}; there are {listed}; trace with more alphas"
        )
    return alphas.index(order)


def _unusable(label: str | None, profile: np.ndarray, windows: int | str, steps: int | None) -> str:
    """Why an answer cannot be used; "" where it can."""
    if label is None:
        return "without a label"
    least = max(1 if windows == EACH else int(windows), steps or 1)
    if len(profile) < least:
        return f"shorter than {least} step{'s' * (least > 1)}"
    return "" if np.isfinite(profile).all() else "with NaN"
