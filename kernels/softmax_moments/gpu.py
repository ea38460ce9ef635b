"""Softmax moments for NVIDIA GPUs (Mosaic GPU, Hopper and later): every byte of the logits is read once.

A row is cut into parts, one per block of 128 threads. Every register lane keeps the sums, the top two and the maximum
of the entries that pass through it, so no data crosses lanes until the part is read. The parts of a row are merged by
the moment algebra.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from ..gpu_tiles import empty_sums, interpreter, plgpu, sum_terms, too_old
from ..moments import MASKED, Alphas, Moments
from ..tiles import shift_sums
from .types import SoftmaxSums

TILE = 4096  # entries that are loaded before the first is used: 16 KiB in float32
BLOCKS = 1024  # target number of thread blocks: fills the 132 multiprocessors of an H100 several times over


def refuses(*_: Any, **__: Any) -> str | None:
    """Return why the kernel cannot serve a call, or None."""
    return too_old()


def softmax_moments(
    logits: Float[Array, "R V"], *, alphas: Alphas, temperature: Float[Array, " R"] | None, interpret: bool = False
) -> SoftmaxSums:
    """Compute softmax_moments on an NVIDIA GPU."""
    rows, size = logits.shape
    if size < TILE:
        logits = jnp.pad(logits, ((0, 0), (0, TILE - size)), constant_values=-jnp.inf)
    tiles = pl.cdiv(logits.shape[1], TILE)
    tiles_of_part = pl.cdiv(tiles, pl.cdiv(BLOCKS, rows))
    parts = pl.cdiv(tiles, tiles_of_part)
    sums = 4 + (0 in alphas) + len(alphas)
    kernel = plgpu.kernel(
        functools.partial(_part_of_row, alphas=alphas, tiles_of_part=tiles_of_part),
        out_type=(
            jax.ShapeDtypeStruct((sums, parts, rows), jnp.float32),
            jax.ShapeDtypeStruct((parts, rows), jnp.float32),
            jax.ShapeDtypeStruct((parts, rows), jnp.int32),
        ),
        grid=(parts, rows),
        grid_names=("part", "row"),
        kernel_name="softmax_moments",
        interpret=interpreter(interpret),
        cost_estimate=pl.CostEstimate(
            flops=12 * logits.size, transcendentals=logits.size, bytes_accessed=logits.size * logits.dtype.itemsize
        ),
    )
    (m, l, a, b, *sums), second, top1 = kernel(logits, temperature)  # noqa: E741
    r = jnp.stack(sums[: len(alphas)], axis=-1) if alphas else jnp.zeros((*m.shape, 0))
    return SoftmaxSums(Moments(m, l, a, b, r, alphas, *sums[len(alphas) :]), top1, second).join(0)


def _part_of_row(
    logits: Any, temperatures: Any, sums_out: Any, second_out: Any, top1_out: Any, *, alphas: Alphas, tiles_of_part: int
) -> None:
    """Read one part of one row."""
    row, part = lax.axis_index("row"), lax.axis_index("part")
    temperature = None if temperatures is None else temperatures[row]
    size = logits.shape[1]
    tiles = pl.cdiv(size, TILE)
    vector = math.gcd(size, 16 // logits.dtype.itemsize)  # entries of one aligned load: 16 bytes at most
    width = 128 * vector
    layout = plgpu.Layout.WG_STRIDED((width,), vector)
    lane = plgpu.broadcasted_iota(jnp.int32, (width,), 0, layout=layout)

    def full(value: float, dtype: Any = jnp.float32) -> Any:
        return plgpu.layout_cast(jnp.full((width,), value, dtype), layout)

    def tile(i: Any, carry: Any) -> Any:
        m, second, top1, sums = carry
        begin = (part * tiles_of_part + i) * TILE
        shifted = jnp.minimum(begin, size - TILE)  # the last tile begins early; entries it repeats are masked
        begins = [shifted + j * width for j in range(TILE // width)]
        loaded = [plgpu.load(logits.at[row, pl.ds(at, width)], layout=layout, optimized=False) for at in begins]
        before = m
        scores = []
        for at, score in zip(begins, loaded, strict=True):
            score = score.astype(jnp.float32)
            if temperature is not None:
                score = jnp.where(score <= MASKED, MASKED, score / temperature)
            index = lane + at
            score = jnp.where(index < begin, MASKED, jnp.maximum(score, MASKED))
            second = jnp.maximum(second, jnp.minimum(m, score))
            top1 = jnp.where(score > m, index, top1)
            m = jnp.maximum(m, score)
            scores.append(score)
        sums = shift_sums(sums, before - m, alphas)
        for score in scores:
            sums = jax.tree.map(jnp.add, sums, sum_terms(score, m, alphas))
        return m, second, top1, sums

    zero = full(0.0)
    carry = full(MASKED), full(MASKED), full(0, jnp.int32), empty_sums(zero, alphas)
    steps = jnp.minimum(tiles_of_part, tiles - part * tiles_of_part)
    m, second, top1, sums = lax.fori_loop(0, steps, tile, carry)

    largest = jnp.max(m)
    sums = shift_sums(sums, m - largest, alphas)
    for i, value in enumerate((largest, *map(jnp.sum, jax.tree.leaves(sums)))):
        sums_out[i, part, row] = value
    best = jnp.minimum(jnp.min(jnp.where(m == largest, top1, size)), size - 1)  # a NaN row has no largest entry
    top1_out[part, row] = best
    second_out[part, row] = jnp.max(jnp.where(top1 == best, second, m))
