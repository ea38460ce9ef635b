"""unembed_moments for NVIDIA GPUs (Mosaic GPU, Hopper): a tile of logits lives in registers and nowhere else.

A block of 128 threads takes 64 rows, of any groups, and one part of the vocabulary. It streams both operands through
shared memory, and adds the sums of each tile of the vocabulary to those of its rows. A lens needs the output's logits
beside its own: where there are lenses, the output's hidden state of every row is multiplied by the same tile as well,
which costs arithmetic and no bytes. The parts are merged by the moment algebra.

The matrix unit takes bfloat16. Other numbers are written as sums of three of those, and the products of all terms but
the smallest make one as exact as float32's.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from ..gpu_tiles import entries, interpreter, pieces, plgpu, too_old
from ..moments import FLOOR, MASKED, Moments
from ..soft_cap import soft_capped
from ..tiles import Sums, moved
from .types import UnembedSums

ROWS = 64  # of a block: those of one instruction of the matrix unit
COLUMNS = 32  # tokens whose logits are read out together: so few that two blocks fit a multiprocessor
WIDTH = 32  # the hidden width is padded to a multiple of this, and multiplied by one or two times as much in a step
BLOCKS = 264  # wanted at least: two for each of the 132 multiprocessors of an H100


def refuses(hidden, unembedding, *, alphas, soft_cap, targets, keep_logits):
    return too_old()


def unembed_moments(hidden, unembedding, *, alphas, soft_cap, targets, keep_logits, interpret=False):
    groups, rows, _ = hidden.shape
    vocabulary = len(unembedding)
    hidden, unembedding = _padded(hidden, (1, 1, WIDTH)), _padded(unembedding, (8, WIDTH))
    width = unembedding.shape[1]
    step = WIDTH if width % (2 * WIDTH) else 2 * WIDTH
    exact = unembedding.dtype == jnp.bfloat16
    columns, stages = (128, 3) if exact else (64, 2)

    blocks = pl.cdiv(groups * rows, ROWS)
    tiles = pl.cdiv(vocabulary, columns)
    tiles_of_part = pl.cdiv(tiles, pl.cdiv(BLOCKS, blocks))
    parts = pl.cdiv(tiles, tiles_of_part)

    # The output comes first: the kernel writes the logits of the first rows.
    own = pieces(_padded(jnp.roll(hidden, 1, axis=0).reshape(-1, width), (8, 1)))
    output = None
    if groups > 1:
        output = pieces(_padded(jnp.broadcast_to(hidden[-1:], hidden.shape).reshape(-1, width), (8, 1)))
    if targets is not None:
        targets = jnp.pad(targets, (0, blocks * ROWS - rows), constant_values=-1)

    def shared(shape, dtype=jnp.bfloat16):
        size = jnp.dtype(dtype).itemsize
        swizzle = min(128, step * size)
        transforms = plgpu.TilingTransform((8, swizzle // size)), plgpu.SwizzleTransform(swizzle)
        return plgpu.SMEM((*shape, step), dtype, transforms=transforms)

    operand = shared((stages, len(own), ROWS))
    scalars = 6 + len(alphas)
    kernel = plgpu.kernel(
        functools.partial(
            _part_of_rows, vocabulary=vocabulary, tiles_of_part=tiles_of_part, alphas=alphas, soft_cap=soft_cap
        ),
        out_type=(
            jax.ShapeDtypeStruct((scalars, parts, blocks * ROWS), jnp.float32),
            jax.ShapeDtypeStruct((parts, blocks * ROWS), jnp.int32),
            jax.ShapeDtypeStruct((parts, blocks * ROWS), jnp.float32) if targets is not None else None,
            jax.ShapeDtypeStruct((_up(rows, 8), _up(vocabulary, 32)), jnp.float32) if keep_logits else None,
        ),
        grid=(parts, blocks),
        grid_names=("part", "block"),  # blocks that read the same part run side by side
        kernel_name="unembed_moments",
        cost_estimate=pl.CostEstimate(
            flops=2 * own.size * vocabulary * (1 if groups == 1 else 2),
            transcendentals=groups * rows * vocabulary * (1 if groups == 1 else 3),
            bytes_accessed=unembedding.nbytes + own.nbytes + 4 * keep_logits * rows * vocabulary,
        ),
        interpret=interpreter(interpret),
        scratch_types=dict(
            scratch=_Scratch(
                own=operand,
                output=operand if groups > 1 else None,
                weights=shared((stages, columns), unembedding.dtype),
                pieces=None if exact else shared((3, columns)),
                logits=plgpu.SMEM((ROWS, COLUMNS), jnp.float32) if keep_logits else None,
                loaded=plgpu.Barrier(num_arrivals=2 + (groups > 1), num_barriers=stages),
            )
        ),
    )
    sums, top1, target, logits = kernel(own, output, unembedding, targets)

    def by_group(x):
        return jnp.roll(x[..., : groups * rows].reshape(*x.shape[:-1], groups, rows), -1, axis=-2)

    m, l, a, b, cross, second, *r = by_group(sums)  # noqa: E741
    r = jnp.stack([x[:, -1] for x in r], axis=-1) if alphas else jnp.zeros((parts, rows, 0))
    parts_of_rows = UnembedSums(
        moments=Moments(m, l, a, b, jnp.zeros((*m.shape, 0))),
        r=r,
        top1=by_group(top1),
        second=second[:, -1],
        cross=cross,
        target=None if target is None else target[:, :rows],
        logits=None,
    )
    return dataclasses.replace(
        parts_of_rows.joined(0, alphas), logits=logits[:rows, :vocabulary] if keep_logits else None
    )


class _Scratch(NamedTuple):
    """Shared memory of a block: both operands' tiles in flight, and what a tile becomes."""

    own: Any
    output: Any
    weights: Any
    pieces: Any
    logits: Any
    loaded: Any


class _Rows(NamedTuple):
    """What is known of a block's rows, [ROWS] each, after some tiles."""

    m: Any
    sums: Sums
    second: Any
    top1: Any
    target: Any
    output_m: Any
    output_l: Any
    cross: Any


def _padded(x, multiples):
    """x with zeros up to multiples of these sizes: the copy engine cuts no tile."""
    return jnp.pad(x, [(0, _up(size, multiple) - size) for size, multiple in zip(x.shape, multiples, strict=True)])


def _up(size, multiple):
    return pl.cdiv(size, multiple) * multiple


def _part_of_rows(
    own,
    output,
    weights,
    targets,
    sums_out,
    top1_out,
    target_out,
    logits_out,
    *,
    scratch,
    vocabulary,
    tiles_of_part,
    alphas,
    soft_cap,
):
    part, row = lax.axis_index("part"), lax.axis_index("block") * ROWS
    stages, columns, step_width = scratch.weights.shape
    first = part * tiles_of_part
    tiles = jnp.minimum(tiles_of_part, pl.cdiv(vocabulary, columns) - first)
    steps = weights.shape[1] // step_width
    rows_here = pl.ds(row, ROWS)

    def load(step):
        slot, at = lax.rem(step, stages), pl.ds(lax.rem(step, steps) * step_width, step_width)
        loaded = scratch.loaded.at[slot]
        tile = pl.ds((first + lax.div(step, steps)) * columns, columns)
        plgpu.copy_gmem_to_smem(own.at[:, rows_here, at], scratch.own.at[slot], loaded)
        if output is not None:
            plgpu.copy_gmem_to_smem(output.at[:, rows_here, at], scratch.output.at[slot], loaded)
        plgpu.copy_gmem_to_smem(weights.at[tile, at], scratch.weights.at[slot], loaded)

    def multiply(step, accumulators):
        slot = lax.rem(step, stages)
        plgpu.barrier_wait(scratch.loaded.at[slot])
        if scratch.pieces is None:
            factors = [scratch.weights.at[slot]]
        else:
            factors = [scratch.pieces.at[i] for i in range(3)]
            rest = scratch.weights[slot].astype(jnp.float32)
            for piece in factors:
                high = rest.astype(jnp.bfloat16)
                piece[...] = high
                rest = rest - high.astype(jnp.float32)
            plgpu.commit_smem()
        for accumulator, operand in zip(accumulators, (scratch.own, scratch.output), strict=False):
            for i in range(operand.shape[1]):
                for piece in factors[: 3 - i]:
                    plgpu.wgmma(accumulator, operand.at[slot, i], piece.transpose((1, 0)))
        plgpu.wgmma_wait(0)
        pl.when(step + stages < tiles * steps)(lambda: load(step + stages))

    def products(tile):
        def accumulate(*accumulators):
            lax.fori_loop(0, steps, lambda k, _: multiply(tile * steps + k, accumulators), None)
            return [accumulator[...] for accumulator in accumulators]

        shape = plgpu.ACC((ROWS, columns), jnp.float32)
        return pl.run_scoped(accumulate, *[shape] * (1 if output is None else 2))

    layout = plgpu.Layout.WGMMA.reduce(1)
    index = plgpu.broadcasted_iota(jnp.int32, (ROWS, COLUMNS), 1, layout=plgpu.Layout.WGMMA)
    target = None if targets is None else plgpu.load(targets.at[rows_here], layout=layout, optimized=False)

    def full(value, dtype=jnp.float32):
        return plgpu.layout_cast(jnp.full((ROWS,), value, dtype), layout)

    def wide(x):
        return lax.broadcast_in_dim(x, (ROWS, COLUMNS), (0,))

    def tile(i, known):
        tiles_of_rows = products(i)
        for at in range(0, columns, COLUMNS):
            part_of_tile = [x[:, at : at + COLUMNS] for x in tiles_of_rows]
            known = read(part_of_tile, (first + i) * columns + at, known)
        return known

    def read(tiles_of_rows, column, known):
        at = index + column
        there = at < vocabulary
        capped = (soft_capped(x, soft_cap) for x in tiles_of_rows)
        logits, *of_output = (jnp.where(there, jnp.maximum(x, MASKED), MASKED) for x in capped)
        if logits_out is not None:
            pl.when(row < logits_out.shape[0])(lambda: store(logits, column))
        best = jnp.max(logits, axis=1)
        m = jnp.maximum(known.m, best)
        here = entries(logits, wide(m), alphas)
        best_at = jnp.min(jnp.where(logits == wide(best), at, vocabulary), axis=1)
        next_best = jnp.max(jnp.where(at == wide(best_at), MASKED, logits), axis=1)
        new = known._replace(
            m=m,
            sums=jax.tree.map(lambda x, y: x + jnp.sum(y, axis=1), moved(known.sums, known.m - m, alphas), here),
            second=jnp.maximum(jnp.maximum(known.second, next_best), jnp.minimum(known.m, best)),
            top1=jnp.where(best > known.m, best_at, known.top1),
        )
        if target is not None:
            found = jnp.max(jnp.where(at == wide(target), logits, MASKED), axis=1)
            new = new._replace(target=jnp.maximum(known.target, found))
        return compared(known, new, logits, *of_output) if of_output else new

    def compared(known, new, logits, of_output):
        """`new` with the sums over a tile of the output's logits beside the row's own."""
        output_m = jnp.maximum(known.output_m, jnp.max(of_output, axis=1))
        d = jnp.maximum(known.m - new.m, FLOOR)
        d_output = jnp.maximum(known.output_m - output_m, FLOOR)
        u, u_output = logits - wide(new.m), of_output - wide(output_m)
        e = entries(of_output, wide(output_m)).l
        cross = jnp.exp(d_output) * (known.cross + known.output_l * (d_output - d))
        return new._replace(
            output_m=output_m,
            output_l=jnp.exp(d_output) * known.output_l + jnp.sum(e, axis=1),
            cross=cross + jnp.sum(e * (u_output - u), axis=1),
        )

    def store(logits, column):
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        plgpu.store(scratch.logits, logits, optimized=False)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(scratch.logits, logits_out.at[rows_here, pl.ds(column, COLUMNS)])

    for step in range(stages):
        pl.when(step < tiles * steps)(functools.partial(load, jnp.int32(step)))
    zero, masked = full(0.0), full(MASKED)
    known = lax.fori_loop(
        0,
        tiles,
        tile,
        _Rows(
            m=masked,
            sums=Sums(zero, zero, zero, tuple(zero for _ in alphas)),
            second=masked,
            top1=full(0, jnp.int32),
            target=masked,
            output_m=masked,
            output_l=zero,
            cross=zero,
        ),
    )
    sums = known.sums
    for i, value in enumerate((known.m, sums.l, sums.a, sums.b, known.cross, known.second, *sums.r)):
        plgpu.store(sums_out.at[i, part, rows_here], value, optimized=False)
    plgpu.store(top1_out.at[part, rows_here], known.top1, optimized=False)
    if target is not None:
        plgpu.store(target_out.at[part, rows_here], known.target, optimized=False)
    plgpu.wait_smem_to_gmem(0)
