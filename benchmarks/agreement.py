"""Whether two traces of the same run say the same."""

from __future__ import annotations

import numpy as np

from jaxtrace.traces.trace import Trace

ENTROPY_BOUND = 1e-3  # nats
TIE = 1e-4  # where the two best tokens are closer than this, float32 may order them either way

Metrics = dict[str, np.ndarray]  # name → [B, steps, …]


def metrics_of(trace: Trace) -> Metrics:
    """Metrics of rows of equal length, stacked."""
    names = trace.rows[0].metrics
    return {name: np.stack([row.metrics[name] for row in trace.rows]) for name in names}


def differences(ours: Metrics, theirs: Metrics) -> dict[str, float]:
    """Largest absolute difference of every metric both have, up to where a row's tokens part.

    Raises:
      AssertionError: tokens part where there was no tie, or entropies differ by more than ENTROPY_BOUND.
    """
    same = ours["token"] == theirs["token"]
    together = np.logical_and.accumulate(same, axis=1)
    for row in np.flatnonzero(~together.all(axis=1)):
        step = int(together[row].argmin())
        gap = ours["top1_top2_gap"][row, step] / ours["top1_prob"][row, step]
        assert gap < TIE, f"row {row}: tokens part at step {step}, where the best two are {gap:.1e} apart"
    found = {}
    for name in sorted(ours.keys() & theirs.keys() - {"token"}):
        a, b = ours[name][together], theirs[name][together]
        assert a.shape == b.shape, f"{name}: shapes {a.shape} and {b.shape}"
        assert (np.isnan(a) == np.isnan(b)).all(), f"{name}: not missing in the same places"
        found[name] = float((a != b).mean()) if a.dtype.kind == "i" else float(np.nanmax(np.abs(a - b), initial=0))
    bad = {name: x for name, x in found.items() if "entropy" in name and "var" not in name and x > ENTROPY_BOUND}
    assert not bad, f"entropies differ: {bad}"
    return found


def agreement_line(ours: Metrics, theirs: Metrics) -> str:
    """A footer: how many tokens agree, and each metric's largest difference."""
    found = differences(ours, theirs)
    same = ours["token"] == theirs["token"]
    each = ", ".join(f"{name} {x:.0e}" for name, x in found.items())
    return f"Agreement: {same.sum()} of {same.size} tokens; largest absolute difference: {each}."


def token_agreement(ours: np.ndarray, theirs: np.ndarray) -> str:
    """The same for plain runs: tokens alone."""
    return f"{(ours == theirs).sum()} of {ours.size}"
