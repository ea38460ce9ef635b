"""Traces with little or nothing in them: NaN, empty, of one row, step, layer or head, of few probes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxtrace.schema import GROUPS, QUANTITIES
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace
from tests.figures.traces import row, trace

PROMPTS = 12


def rows_of(steps: Sequence[int], *, seed: int = 0, groups: Sequence[str] = GROUPS, **sizes: Any) -> list[Row]:
    """Return a row per number of steps; conditions, kinds and right answers take turns, so that every study has two."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, count in enumerate(steps):
        side = number % 2
        meta = {
            "condition": ("factual", "creative")[side],
            "kind": ("essay", "poem")[side],
            "answer": "x",
            "seen": "often",
        }
        about = {"id": f"p-{number}", "prompt": f"Question {number}?", "ids": range(number, number + 4), "meta": meta}
        text = ("x" if side else "y") * bool(count)
        rows.append(row(rng, [f" t{step}" for step in range(count)], text=text, groups=groups, **about, **sizes))
    return rows


def poisoned(one: Row, first: int = 0) -> Row:
    """Return a row whose logits are not finite from step `first` on, where it ends: no token, and NaN metrics."""
    metrics = {name: values[: first + 1].copy() for name, values in one.metrics.items()}
    for name, values in metrics.items():
        values[first:] = -1 if QUANTITIES[name].integer else np.nan
    pieces = (*one.pieces[:first], "")
    return Row(one.prompt, one.prompt_tokens, one.prompt_pieces, metrics, pieces, one.text * bool(first), "not_finite")


def without(name: str, value: float, part: slice = slice(None)) -> Callable[[Row], Row]:
    """Return a function that puts a value in place of a metric of a row, at the layers `part`."""

    def change(one: Row) -> Row:
        values = one.metrics[name]
        values[(slice(None), part) if values.ndim > 1 else slice(None)] = value
        return one

    return change


def odd_traces() -> dict[str, Trace]:
    """Return the traces by what is odd about them."""
    eight = [8] * PROMPTS
    made = {
        "nan from the first step": [poisoned(one) for one in rows_of(eight)],
        "nan from the fourth step": [poisoned(one, 3) for one in rows_of(eight)],
        "every third row nan": [one if i % 3 else poisoned(one) for i, one in enumerate(rows_of(eight))],
        "all but one row nan": [poisoned(one) if i else one for i, one in enumerate(rows_of(eight))],
        "all but two rows nan": [poisoned(one) if i > 1 else one for i, one in enumerate(rows_of(eight))],
        "attention nan": [without("attention_entropy", np.nan)(one) for one in rows_of(eight)],
        "attention of a layer nan": [without("attention_entropy", np.nan, slice(1, 2))(one) for one in rows_of(eight)],
        "entropy nan": [without("entropy", np.nan)(one) for one in rows_of(eight)],
        "lens nan": [without("lens_entropy", np.nan)(one) for one in rows_of(eight)],
        "logprob infinite": [without("logprob", -np.inf)(one) for one in rows_of(eight)],
        "residual infinite": [without("hidden_norm", np.inf)(one) for one in rows_of(eight)],
        "constant": [
            Row(
                one.prompt,
                one.prompt_tokens,
                one.prompt_pieces,
                {name: np.zeros_like(values) for name, values in one.metrics.items()},
                one.pieces,
                one.text,
                one.stop,
            )
            for one in rows_of(eight)
        ],
        "no rows": [],
        "rows without steps": rows_of([0] * PROMPTS),
        "some rows without steps": rows_of([8, 8, 0] * 4),
        "one row": rows_of([8]),
        "one row, one step": rows_of([1]),
        "two rows": rows_of([8, 8]),
        "one step": rows_of([1] * PROMPTS),
        "two steps": rows_of([2] * PROMPTS),
    }
    traces = {name: trace(rows) for name, rows in made.items()}
    traces["one layer"] = trace(rows_of(eight, layers=1), layers=1)
    traces["one head"] = trace(rows_of(eight, heads=1), heads=1)
    traces["one layer, one head, one step"] = trace(rows_of([1] * PROMPTS, layers=1, heads=1), layers=1, heads=1)
    for groups in ((), *((group,) for group in GROUPS)):
        traces[f"probes {'+'.join(groups) or 'none'}"] = trace(rows_of(eight, groups=groups))
    traces["scored"] = trace(rows_of(eight), mode="score")
    return traces
