"""Metrics as Arrow columns, and back. A missing value (NaN, or −1 for an integer metric) is null."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from jaxtrace.schema import Metric


def nullable_column(values: np.ndarray, metric: Metric) -> pa.Array:
    """Return a column of values [n]."""
    return pa.array(values, mask=values == -1 if metric.integer else np.isnan(values))


def column_values(array: pa.Array | pa.ChunkedArray, metric: Metric) -> np.ndarray:
    """Return the values of a column; the inverse of `nullable_column`."""
    if metric.integer:
        array = array.fill_null(-1)
    return array.to_numpy(zero_copy_only=False).copy()  # Arrow's memory is read-only


def list_column(
    values: np.ndarray, metric: Metric, sizes: Sequence[int] | np.ndarray, present: np.ndarray | None = None
) -> pa.Array:
    """Return a column of lists.

    Args:
      values: concatenated values of all lists, in any shape.
      metric: metric of the values.
      sizes: length of each list, 0 for a missing list.
      present: False for missing lists; None if none is missing.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    missing = None if present is None else pa.array(~present)
    return pa.ListArray.from_arrays(offsets, nullable_column(values.reshape(-1), metric), mask=missing)


def list_values(column: pa.ChunkedArray, metric: Metric) -> np.ndarray:
    """Return the concatenated values of a column of lists."""
    return column_values(column.combine_chunks().flatten(), metric)


def round_to_float16(table: pa.Table) -> pa.Table:
    """Round all floats of a table, also in lists, to 11 significant bits, halves to even; they stay float32."""
    columns = [_round(column.combine_chunks()) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _round(array: pa.Array) -> pa.Array:
    if pa.types.is_list(array.type):
        return pa.ListArray.from_arrays(array.offsets, _round(array.values), mask=array.is_null())
    if not pa.types.is_floating(array.type):
        return array
    values = array.to_numpy(zero_copy_only=False)
    bits = values.view(np.uint32)
    nearest = (bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return pa.array(np.where(np.isfinite(values), nearest.view(np.float32), values), mask=np.isnan(values))
