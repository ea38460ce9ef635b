"""Comparison of two traces of the same run."""

from __future__ import annotations

import numpy as np

from jaxtrace.traces.trace import Trace

ENTROPY_BOUND = 1e-3  # nats
TIE = 1e-4  # float32 may order the two best tokens either way if they are closer than this

Metrics = dict[str, np.ndarray]  # name → [B, steps, …]


def metrics_of(trace: Trace) -> Metrics:
    """Return the stacked metrics of rows of equal length."""
    names = trace.rows[0].metrics
    return {name: np.stack([row.metrics[name] for row in trace.rows]) for name in names}


def differences(ours: Metrics, theirs: Metrics) -> dict[str, float]:
    """Return the largest absolute difference of every shared metric, up to the step where a row's tokens diverge.

    Raises:
      AssertionError: tokens diverge without a tie, or entropies differ by more than ENTROPY_BOUND.
    """
    same = ours["token"] == theirs["token"]
    together = np.logical_and.accumulate(same, axis=1)
    for row in np.flatnonzero(~together.all(axis=1)):
        step = int(together[row].argmin())
        gap = ours["top1_top2_gap"][row, step] / ours["top1_prob"][row, step]
        assert gap < TIE, f"row {row}: tokens diverge at step {step}, where the best two are {gap:.1e} apart"
    largest = {}
    for name in sorted(ours.keys() & theirs.keys() - {"token"}):
        a, b = ours[name][together], theirs[name][together]
        assert a.shape == b.shape, f"{name}: shapes {a.shape} and {b.shape}"
        assert (np.isnan(a) == np.isnan(b)).all(), f"{name}: NaN in different places"
        largest[name] = float((a != b).mean()) if a.dtype.kind == "i" else float(np.nanmax(np.abs(a - b), initial=0))
    too_large = {
        name: x for name, x in largest.items() if "entropy" in name and "var" not in name and x > ENTROPY_BOUND
    }
    assert not too_large, f"entropies differ: {too_large}"
    return largest


def agreement_line(ours: Metrics, theirs: Metrics) -> str:
    """Return a footer: the number of equal tokens, and each metric's largest difference."""
    largest = differences(ours, theirs)
    same = ours["token"] == theirs["token"]
    each = ", ".join(f"{name} {x:.0e}" for name, x in largest.items())
    return f"Agreement: {same.sum()} of {same.size} tokens; largest absolute difference: {each}."


def token_agreement(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Return the number of equal tokens of two plain runs, as text."""
    return f"{(ours == theirs).sum()} of {ours.size}"
