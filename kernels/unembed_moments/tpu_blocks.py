"""Blocks of unembed_moments: rows and tiles of the unembedding that fit a TPU core's memory."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from ..tpu_tiles import LANES, SUBLANES

MOST_ROWS = 768
VMEM = 13 << 20  # bytes, of the 16 MiB that a kernel gets on every generation


class UnembedBlocks(NamedTuple):
    """Blocks of rows, each of all groups, and tiles of the unembedding.

    A block begins with its rows of the output, repeated to fill eight if they are fewer. Eight rows of a lens therefore
    always meet eight rows of the output in the same order. The lens rows follow, group by group.

    Attributes:
      groups: number of groups, G.
      rows: rows of each group in a block: 1, 2, 4 or a multiple of 8.
      count: number of blocks.
      tokens: tokens of a tile.
      width: width of a tile.
    """

    groups: int
    rows: int
    count: int
    tokens: int
    width: int

    @classmethod
    def of(cls, groups: int, rows: int, vocabulary: int, width: int, itemsize: int) -> UnembedBlocks:
        """Return the blocks for hidden [groups, rows, width] and unembedding [vocabulary, width] of this item size."""
        if rows < SUBLANES:
            size, count = 1 << (rows - 1).bit_length(), 1
        else:
            most = max(MOST_ROWS // groups, SUBLANES) // SUBLANES
            count = pl.cdiv(rows, most * SUBLANES)
            size = pl.cdiv(pl.cdiv(rows, count), SUBLANES) * SUBLANES
        whole = pl.cdiv(vocabulary, LANES) * LANES
        parts = [width // n for n in range(2, width // LANES + 1) if width % (n * LANES) == 0]
        tiles = (
            [(2048 >> n, width) for n in range(4)]
            + [(512, part) for part in parts]
            + [(128, part) for part in [width, *parts]]
        )
        options = [cls(groups, size, count, min(tokens, whole), part) for tokens, part in tiles]
        return next(
            (blocks for blocks in options if blocks.bytes(itemsize, width // blocks.width) <= VMEM), options[-1]
        )

    @property
    def output(self) -> int:
        """Number of rows of the output in a block, repeated ones included."""
        return max(self.rows, SUBLANES)

    @property
    def lens(self) -> int:
        """Number of lens rows in a block."""
        return (self.groups - 1) * self.rows

    @property
    def size(self) -> int:
        """Number of rows in a block."""
        return pl.cdiv(self.output + self.lens, 2 * SUBLANES) * 2 * SUBLANES

    @property
    def kept_output(self) -> int:
        """Number of rows of the output that are kept for the lenses."""
        return self.output if self.lens else SUBLANES

    def bytes(self, itemsize: int, parts: int) -> int:
        """Return a block's bytes of VMEM: tiles in flight, operands of the product, logits, their u and e^u, sums."""
        tiles = (min(parts, 2) * self.size + 2 * self.tokens) * self.width * itemsize
        operands = (6 * (self.size + self.tokens) if itemsize == 4 else 2 * self.size) * self.width
        logits = 4 * self.tokens * (2 * self.size + 2 * self.kept_output + 2 * self.rows)
        return tiles + operands + logits + 3 * 4 * LANES * (self.size + self.output)

    def arranged(self, hidden: Float[Array, "G R D"]) -> Float[Array, "_ D"]:
        """Return the rows in the order of the blocks, each padded with zeros."""
        hidden = self._by_block(hidden)
        lens = jnp.moveaxis(hidden[:-1], 0, 1).reshape(self.count, self.lens, hidden.shape[-1])
        rows = jnp.concatenate([self._repeated(hidden[-1]), lens], axis=1)
        return self._padded(rows, 1, self.size).reshape(self.count * self.size, -1)

    def arranged_output(self, x: Int[Array, " R"]) -> Int[Array, "_ 1"]:
        """Return per-row values of the output in the order of the blocks."""
        return self._repeated(self._by_block(x[None])[0]).reshape(-1, 1)

    def by_group(self, x: Float[Array, "_ C"], rows: int) -> Float[Array, "G R C"]:
        """Return the blocks' per-row results by group and row."""
        x = x.reshape(self.count, self.size, -1)
        output, lens = x[:, None, : self.rows], x[:, self.output : self.output + self.lens]
        lens = lens.reshape(self.count, self.groups - 1, self.rows, x.shape[2])
        groups = jnp.moveaxis(jnp.concatenate([lens, output], axis=1), 1, 0)
        return groups.reshape(self.groups, -1, groups.shape[-1])[:, :rows]

    def _by_block(self, x: Array) -> Array:
        """Reshape [G, R, …] to [G, blocks, rows of a block, …]."""
        x = self._padded(x, 1, self.count * self.rows)
        return x.reshape(len(x), self.count, self.rows, *x.shape[2:])

    def _repeated(self, x: Array) -> Array:
        """Repeat [blocks, rows, …] to [blocks, output, …]."""
        return jnp.concatenate([x] * (self.output // self.rows), axis=1)

    @staticmethod
    def _padded(x: Array, axis: int, size: int) -> Array:
        """Pad an axis with zeros to a size."""
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, size - x.shape[axis])
        return jnp.pad(x, pad)
