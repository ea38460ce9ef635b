"""Sizes of chunks and caches, rounded to a few values so that few programs are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from jaxtrace.settings.probes import Probes

CHUNK_WIDTHS = (16, 32, 64, 128, 256)  # positions fed at once
LEAST_SLOTS = 64  # of a cache; larger caches double it repeatedly
CALL = 128  # fixed cost of a call, in positions


def cache_slots(positions: int, context: int) -> int:
    """Return the number of cache slots for a number of positions, limited by the context."""
    slots = LEAST_SLOTS
    while slots < positions:
        slots *= 2
    full, tail = divmod(context, CHUNK_WIDTHS[-1])
    return min(slots, full * CHUNK_WIDTHS[-1] + sum(chunk_widths(tail)))


def cache_chunk(probes: Probes, *, deterministic: bool = False) -> int | None:
    """Return the `chunk` of `init_state` in a run; None if caches hold all positions.

    Rows of attention weights are computed from all keys. Kept positions move when those of another row must, which
    changes the order of sums: a deterministic run does not move any.
    """
    return None if probes.attention_rows or deterministic else CHUNK_WIDTHS[-1]


def chunk_widths(positions: int) -> list[int]:
    """Return the widths of chunks that cover the positions: the widest ones, then the narrowest that fits the tail."""
    full, tail = divmod(positions, CHUNK_WIDTHS[-1])
    last = [min(width for width in CHUNK_WIDTHS if width >= tail)] if tail else []
    return [CHUNK_WIDTHS[-1]] * full + last


def best_width(remaining: Int[np.ndarray, " B"], room: int) -> int:
    """Return the chunk width that feeds the most positions for its cost.

    Args:
      remaining: number of positions that each row still has to feed.
      room: widest chunk that fits into the cache.
    """
    fitting = [width for width in CHUNK_WIDTHS if width <= room]
    return max(fitting, key=lambda width: np.minimum(remaining, width).sum() / (len(remaining) * width + CALL))


def fixed_width(slots: int) -> int:
    """Return the widest chunk width that divides a cache's slots."""
    return max(width for width in CHUNK_WIDTHS if slots % width == 0)


def chunks(
    rows: Sequence[Int[np.ndarray, " P *m"]], widths: list[int]
) -> Iterator[tuple[Int[np.ndarray, "B T *m"], Int[np.ndarray, " B"]]]:
    """Yield consecutive chunks of the rows' positions, each as `chunk` returns it."""
    start = 0
    for width in widths:
        yield chunk([row[start : start + width] for row in rows], width)
        start += width


def chunk(
    rows: Sequence[Int[np.ndarray, " P *m"]], width: int
) -> tuple[Int[np.ndarray, "B T *m"], Int[np.ndarray, " B"]]:
    """Pad rows of at most `width` positions on the right; return them and their lengths."""
    padded = np.zeros((len(rows), width, *rows[0].shape[1:]), rows[0].dtype)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded, np.array([len(row) for row in rows], np.int32)
