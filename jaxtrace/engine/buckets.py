"""Few sizes: how many positions are fed at once, and how many a cache holds, so that few programs are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

CHUNK_WIDTHS = (16, 32, 64, 128, 256)  # positions fed at once
LEAST_SLOTS = 64  # of a cache; larger ones have twice as many, four times as many, …
CALL = 128  # what a call costs beside its positions, in positions


def cache_slots(positions: int, context: int) -> int:
    """Slots of a cache for so many positions of the context."""
    slots = LEAST_SLOTS
    while slots < positions:
        slots *= 2
    return min(slots, sum(chunk_widths(context)))


def chunk_widths(positions: int) -> list[int]:
    """Widths of the chunks that cover so many positions: the widest ones, then the narrowest that holds the rest."""
    full, rest = divmod(positions, CHUNK_WIDTHS[-1])
    tail = [min(width for width in CHUNK_WIDTHS if width >= rest)] if rest else []
    return [CHUNK_WIDTHS[-1]] * full + tail


def best_width(left: Int[np.ndarray, " B"], room: int) -> int:
    """The width of a chunk that feeds the most of the positions that rows have left, for what it costs.

    Args:
      left: positions that each row has yet to feed.
      room: the widest that fits.
    """
    fitting = [width for width in CHUNK_WIDTHS if width <= room]
    return max(fitting, key=lambda width: np.minimum(left, width).sum() / (len(left) * width + CALL))


def chunks(
    rows: Sequence[Int[np.ndarray, " P *m"]], widths: list[int]
) -> Iterator[tuple[Int[np.ndarray, "B T *m"], Int[np.ndarray, " B"]]]:
    """Rows in chunks of positions, one after the other."""
    at = 0
    for width in widths:
        yield chunk([row[at : at + width] for row in rows], width)
        at += width


def chunk(
    rows: Sequence[Int[np.ndarray, " P *m"]], width: int
) -> tuple[Int[np.ndarray, "B T *m"], Int[np.ndarray, " B"]]:
    """Rows of at most so many positions, padded on the right, and how many of them are each row's own."""
    padded = np.zeros((len(rows), width, *rows[0].shape[1:]), rows[0].dtype)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded, np.array([len(row) for row in rows], np.int32)
