"""softmax_moments for NVIDIA GPUs (Mosaic GPU, Hopper and later): every byte of the logits is read once.

A row is cut into parts, one for each block of 128 threads. Every register lane keeps the sums, the top two and the
maximum of the entries that pass through it, so that nothing crosses lanes until the part is read; the parts of a
row are merged by the moment algebra.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from ..gpu_tiles import entries, interpreter, plgpu, too_old
from ..moments import MASKED, Moments
from ..tiles import Sums, moved
from .types import SoftmaxSums

TILE = 4096  # entries that are loaded before the first is used: 16 KiB in float32
BLOCKS = 1024  # wanted at least, to fill the 132 multiprocessors of an H100 several times over


def refuses(logits, *, alphas, temperature):
    return too_old()


def softmax_moments(logits, *, alphas, temperature, interpret=False):
    rows, size = logits.shape
    if size < TILE:
        logits = jnp.pad(logits, ((0, 0), (0, TILE - size)), constant_values=-jnp.inf)
    tiles = pl.cdiv(logits.shape[1], TILE)
    tiles_of_part = pl.cdiv(tiles, pl.cdiv(BLOCKS, rows))
    parts = pl.cdiv(tiles, tiles_of_part)
    sums = 4 + len(alphas)
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
    (m, l, a, b, *r), second, top1 = kernel(logits, temperature)  # noqa: E741
    r = jnp.stack(r, axis=-1) if alphas else jnp.zeros((*m.shape, 0))
    return SoftmaxSums(Moments(m, l, a, b, r, alphas), top1, second).joined(0)


def _part_of_row(logits, temperatures, sums_out, second_out, top1_out, *, alphas, tiles_of_part):
    row, part = lax.axis_index("row"), lax.axis_index("part")
    temperature = None if temperatures is None else temperatures[row]
    size = logits.shape[1]
    tiles = pl.cdiv(size, TILE)
    vector = math.gcd(size, 16 // logits.dtype.itemsize)  # entries of one aligned load: 16 bytes at most
    width = 128 * vector
    layout = plgpu.Layout.WG_STRIDED((width,), vector)
    lane = plgpu.broadcasted_iota(jnp.int32, (width,), 0, layout=layout)

    def full(value, dtype=jnp.float32):
        return plgpu.layout_cast(jnp.full((width,), value, dtype), layout)

    def tile(i, carry):
        m, second, top1, sums = carry
        begin = (part * tiles_of_part + i) * TILE
        shifted = jnp.minimum(begin, size - TILE)  # the last tile begins early; what it has again is masked
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
        sums = moved(sums, before - m, alphas)
        for score in scores:
            sums = jax.tree.map(jnp.add, sums, entries(score, m, alphas))
        return m, second, top1, sums

    zero = full(0.0)
    carry = full(MASKED), full(MASKED), full(0, jnp.int32), Sums(zero, zero, zero, tuple(zero for _ in alphas))
    steps = jnp.minimum(tiles_of_part, tiles - part * tiles_of_part)
    m, second, top1, sums = lax.fori_loop(0, steps, tile, carry)

    largest = jnp.max(m)
    sums = moved(sums, m - largest, alphas)
    for i, value in enumerate((largest, *map(jnp.sum, (sums.l, sums.a, sums.b, *sums.r)))):
        sums_out[i, part, row] = value
    best = jnp.minimum(jnp.min(jnp.where(m == largest, top1, size)), size - 1)  # a row of NaN has none
    top1_out[part, row] = best
    second_out[part, row] = jnp.max(jnp.where(top1 == best, second, m))
