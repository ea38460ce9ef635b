"""Precision "float16": floats rounded to 11 significant bits, stored as float32."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import StoreError
from jaxtrace.traces import TraceWriter, open_trace
from jaxtrace.traces.trace import Trace
from tests.traces.rows import INFO, make_row, make_trace


def test_values_round_like_float16(tmp_path):
    """Normal float16 numbers are compared; NaN, −1 and non-floats are unchanged."""
    trace = make_trace()
    trace.save(tmp_path, precision="float16")
    for got, want in zip(open_trace(tmp_path).rows, trace.rows, strict=True):
        for name, values in want.metrics.items():
            assert got.metrics[name].dtype == values.dtype
            rounded = values.astype(np.float16).astype(values.dtype)
            small = np.abs(values) < 2.0**-14
            np.testing.assert_array_equal(np.where(small, 0, got.metrics[name]), np.where(small, 0, rounded), name)
        assert dataclasses.replace(got, metrics={}, prompt_tokens=0) == dataclasses.replace(
            want, metrics={}, prompt_tokens=0
        )


def test_values_beyond_the_range_of_float16_keep_their_digits(tmp_path):
    row = make_row(1, 5)
    values = np.array([1e6 + 1, -3e38, np.inf, 1e-30, np.nan], np.float32)
    row.metrics["entropy"][:] = values
    Trace([row], INFO).save(tmp_path, precision="float16")
    got = open_trace(tmp_path).rows[0].metrics["entropy"]
    np.testing.assert_allclose(got, values, rtol=2**-11)
    assert got[0] == 999936  # a multiple of 512: the spacing of 11-bit numbers of this size


def test_columns_stay_float32_and_files_shrink(tmp_path):
    rng = np.random.default_rng(0)
    row = make_row(0, 4000, ("output",))
    row = dataclasses.replace(row, metrics=row.metrics | {"entropy": rng.random(4000, np.float32)})
    for precision in ("float32", "float16"):
        Trace([row], INFO).save(tmp_path / precision, precision=precision)
    whole, half = (pq.read_metadata(tmp_path / name / "tokens/part-00000.parquet") for name in ("float32", "float16"))
    assert half.schema.to_arrow_schema().equals(whole.schema.to_arrow_schema())
    column = whole.schema.names.index("entropy")
    sizes = [part.row_group(0).column(column).total_compressed_size for part in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]


def test_resume_with_another_precision_is_refused(tmp_path):
    TraceWriter(tmp_path, INFO, precision="float16")
    with pytest.raises(StoreError, match='precision is "float16" in the run there and "float32" in this one'):
        TraceWriter(tmp_path, INFO, resume=True)
    assert open_trace(tmp_path).runs[0].precision == "float16"
