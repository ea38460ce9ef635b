"""Synthetic rows with every metric."""

import numpy as np

from jaxtrace.prompts import Prompt
from jaxtrace.schema import METRICS
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

SIZES = {"layer": 3, "head": 2, "alpha": 4}
INFO = {
    "mode": "generate",
    "layers": SIZES["layer"],
    "heads": SIZES["head"],
    "alphas": [0.5, 2.0, 5.0, float("inf")],
    "model": {"name": "tiny"},
}


def make_row(index: int, steps: int, groups: tuple[str, ...] | None = None) -> Row:
    """Return a row of random metrics of the named groups; None for all groups."""
    rng = np.random.default_rng(index)
    metrics = {}
    for name, metric in METRICS.items():
        if groups is not None and metric.group and metric.group not in groups:
            continue
        extra = 1 if "layer" in metric.dims and metric.first_layer == 0 else 0
        shape = (steps, *(SIZES[dim] + (extra if dim == "layer" else 0) for dim in metric.dims))
        missing = rng.random(shape) < 0.1
        if metric.integer:
            metrics[name] = np.where(missing, -1, rng.integers(0, 50, shape)).astype(np.int32)
        else:
            metrics[name] = np.where(missing, np.nan, rng.normal(size=shape)).astype(np.float32)
    ids = rng.integers(0, 50, index % 4 + 1).astype(np.int32)
    if index % 3:
        prompt = Prompt(text=f"Prompt «{index}»", id=f"made-{index:04d}", meta={"level": index, "of": ["a", None]})
    else:
        prompt = Prompt(tokens=tuple(ids.tolist()), id=f"made-{index:04d}")
    return Row(
        prompt=prompt,
        prompt_tokens=ids,
        prompt_pieces=tuple(f"p{i}" for i in ids),
        metrics=metrics,
        pieces=tuple("" if token < 0 else f" t{token}" for token in metrics["token"]),
        text=f"completion\n{index}",
        stop="length",
    )


def make_trace(groups: tuple[str, ...] | None = None) -> Trace:
    """Return a trace of five rows with 0 to 6 steps."""
    return Trace([make_row(i, steps, groups) for i, steps in enumerate([4, 1, 0, 6, 3])], dict(INFO))


def assert_same_row(got: Row, want: Row) -> None:
    """Assert that all fields are equal, and all arrays bit for bit."""
    for field in ("prompt", "prompt_pieces", "pieces", "text", "stop"):
        assert getattr(got, field) == getattr(want, field), field
    for name in want.metrics:
        assert got.metrics[name].dtype == want.metrics[name].dtype, name
        assert got.metrics[name].shape == want.metrics[name].shape, name
        assert got.metrics[name].tobytes() == want.metrics[name].tobytes(), name
    assert list(got.metrics) == list(want.metrics)
    assert got.prompt_tokens.dtype == np.int32
    assert got.prompt_tokens.tolist() == want.prompt_tokens.tolist()
