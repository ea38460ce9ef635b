"""Metrics as Arrow columns, and back. A value that is missing (NaN, or −1 of an integer metric) is null."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from jaxtrace.schema import Metric


def nullable(values: np.ndarray, metric: Metric) -> pa.Array:
    """A column of values [n]."""
    return pa.array(values, mask=values == -1 if metric.integer else np.isnan(values))


def values_of(array: pa.Array | pa.ChunkedArray, metric: Metric) -> np.ndarray:
    """The inverse of `nullable`."""
    if metric.integer:
        array = array.fill_null(-1)
    return array.to_numpy(zero_copy_only=False).copy()  # Arrow's memory is read-only


def lists(values: np.ndarray, metric: Metric, sizes: Sequence[int] | np.ndarray, present: np.ndarray | None = None):
    """A column of lists.

    Args:
      values: of all lists, one after the other, in any shape.
      metric: of the values.
      sizes: of each list, 0 where it is missing.
      present: which lists are not missing; None for all.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    missing = None if present is None else pa.array(~present)
    return pa.ListArray.from_arrays(offsets, nullable(values.reshape(-1), metric), mask=missing)


def flat_values(column: pa.ChunkedArray, metric: Metric) -> np.ndarray:
    """The values of all lists of a column."""
    return values_of(column.combine_chunks().flatten(), metric)


def rounded(table: pa.Table) -> pa.Table:
    """The table with its floats, also those in lists, rounded to 11 significant bits, halves to even."""
    columns = [_rounded(column.combine_chunks()) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _rounded(array: pa.Array) -> pa.Array:
    if pa.types.is_list(array.type):
        return pa.ListArray.from_arrays(array.offsets, _rounded(array.values), mask=array.is_null())
    if not pa.types.is_floating(array.type):
        return array
    values = array.to_numpy(zero_copy_only=False)
    bits = values.view(np.uint32)
    nearest = (bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return pa.array(np.where(np.isfinite(values), nearest.view(np.float32), values), mask=np.isnan(values))
