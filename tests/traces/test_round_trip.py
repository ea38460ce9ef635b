"""Stored traces are read back exactly."""

import dataclasses

import numpy as np
import pytest

from jaxtrace.traces import TraceWriter, open_trace
from jaxtrace.traces.trace import Trace
from tests.traces.rows import INFO, assert_same_row, make_row, make_trace

GROUPS = [None, ("output",), ("attention",), ("lens", "hidden"), ()]


@pytest.mark.parametrize("groups", GROUPS)
def test_rows_are_read_back_exactly(tmp_path, groups):
    trace = make_trace(groups)
    trace.save(tmp_path / "run")
    back = open_trace(tmp_path / "run")
    assert back.info == INFO | {"complete": True}
    assert len(back.rows) == len(trace.rows)
    for got, want in zip(back.rows, trace.rows, strict=True):
        assert_same_row(got, want)
    assert back.to_xarray().identical(trace.to_xarray())


def test_scored_rows_in_many_parts_are_read_back(tmp_path):
    rows = [make_row(i, i % 3) for i in range(130)]
    Trace(rows, INFO | {"mode": "score"}).save(tmp_path)
    assert len(list((tmp_path / "tokens").iterdir())) == 3
    for got, want in zip(open_trace(tmp_path).rows, rows, strict=True):
        assert_same_row(got, want)


def test_empty_trace_is_read_back(tmp_path):
    Trace([], INFO).save(tmp_path)
    back = open_trace(tmp_path)
    assert (list(back.rows), back.texts, back.info) == ([], [], INFO | {"complete": True})
    assert back.tokens.to_table().num_rows == 0


def test_parts_in_any_order_are_read_in_prompt_order(tmp_path):
    with TraceWriter(tmp_path, INFO) as writer:
        writer.write([(2, make_row(2, 3)), (3, make_row(3, 1))])
        writer.write([(0, make_row(0, 2)), (1, make_row(1, 2))])
        assert writer.done == {0, 1, 2, 3}
        writer.write([(4, make_row(4, 1))])
        assert writer.done == {0, 1, 2, 3, 4}
    rows = open_trace(tmp_path).rows
    assert [row.prompt.id for row in rows] == [f"made-{i:04d}" for i in range(5)]
    assert_same_row(rows[3], make_row(3, 1))


def test_extreme_values_are_read_back_exactly(tmp_path):
    row = make_row(1, 3)
    row.metrics["entropy"][:] = [np.inf, -0.0, np.float32(1e-45)]
    row.metrics["attention_entropy"][:] = np.nan
    row.metrics["hidden_norm"][:] = -np.inf
    Trace([row], INFO).save(tmp_path)
    assert_same_row(open_trace(tmp_path).rows[0], row)


def test_arrays_read_back_are_writable(tmp_path):
    make_trace().save(tmp_path)
    for values in open_trace(tmp_path).rows[0].metrics.values():
        values[...] = 0


def test_empty_text_differs_from_missing_text(tmp_path):
    row = make_row(1, 2)
    prompt = dataclasses.replace(row.prompt, text="", meta={"unit": "é", "bound": float("inf")})
    Trace([dataclasses.replace(row, prompt=prompt)], INFO).save(tmp_path)
    back = open_trace(tmp_path).rows[0].prompt
    assert back.text == "" and back.tokens is None
    assert back.meta == {"unit": "é", "bound": "inf"}


def test_copy_of_an_incomplete_trace_stays_incomplete(tmp_path):
    trace = make_trace()
    Trace(trace.rows, trace.info | {"complete": False}).save(tmp_path)
    assert open_trace(tmp_path).info["complete"] is False
