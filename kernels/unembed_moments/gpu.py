"""unembed_moments for NVIDIA GPUs (Mosaic GPU, Hopper): a tile of logits exists in registers only.

A block of 128 threads computes 64 rows, of any groups, and one part of the vocabulary. It streams both operands through
shared memory and adds each tile of the vocabulary to its rows' sums. A lens needs the output's logits beside its own:
with lenses, the output's hidden state of every row is multiplied by the same tile as well, which costs arithmetic but
no bytes. The parts are merged by the moment algebra.

The matrix unit multiplies bfloat16. Other numbers are sums of three bfloat16 pieces; the products of all pieces but the
smallest are as exact as float32's.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

from ..gpu_tiles import bfloat16_pieces, empty_sums, interpreter, plgpu, sum_terms, too_old
from ..moments import FLOOR, MASKED, Alphas, Moments, cross_terms
from ..soft_cap import Cap, soft_capped
from ..tiles import RunningSums, shift_sums
from .types import Hidden, Targets, Unembedding, UnembedSums, shift_cross

ROWS = 64  # rows of a block: the ones of one instruction of the matrix unit
COLUMNS = 32  # tokens whose logits are read together; few enough that two blocks fit a multiprocessor
WIDTH = 32  # the hidden width is padded to a multiple of this; a step multiplies one or two times as much
BLOCKS = 264  # target number of thread blocks: two for each of the 132 multiprocessors of an H100


def refuses(*_: Any, **__: Any) -> str | None:
    """Return why the kernel cannot serve a call, or None."""
    return too_old()


def unembed_moments(
    hidden: Hidden,
    unembedding: Unembedding,
    *,
    alphas: Alphas,
    soft_cap: Cap,
    targets: Targets,
    keep_logits: bool,
    interpret: bool = False,
) -> UnembedSums:
    """Compute unembed_moments on an NVIDIA GPU."""
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
    row_states = bfloat16_pieces(_padded(jnp.roll(hidden, 1, axis=0).reshape(-1, width), (8, 1)))
    output = None
    if groups > 1:
        output = bfloat16_pieces(_padded(jnp.broadcast_to(hidden[-1:], hidden.shape).reshape(-1, width), (8, 1)))
    if targets is not None:
        targets = jnp.pad(targets, (0, blocks * ROWS - rows), constant_values=-1)

    def shared(shape: tuple[int, ...], dtype: Any = jnp.bfloat16) -> Any:
        size = jnp.dtype(dtype).itemsize
        swizzle = min(128, step * size)
        transforms = plgpu.TilingTransform((8, swizzle // size)), plgpu.SwizzleTransform(swizzle)
        return plgpu.SMEM((*shape, step), dtype, transforms=transforms)

    operand = shared((stages, len(row_states), ROWS))
    scalars = 6 + len(alphas) + (0 in alphas)
    kernel = plgpu.kernel(
        functools.partial(
            _part_of_rows, vocabulary=vocabulary, tiles_of_part=tiles_of_part, alphas=alphas, soft_cap=soft_cap
        ),
        out_type=(
            jax.ShapeDtypeStruct((scalars, parts, blocks * ROWS), jnp.float32),
            jax.ShapeDtypeStruct((parts, blocks * ROWS), jnp.int32),
            jax.ShapeDtypeStruct((parts, blocks * ROWS), jnp.float32) if targets is not None else None,
            jax.ShapeDtypeStruct((_round_up(rows, 8), _round_up(vocabulary, 32)), jnp.float32) if keep_logits else None,
        ),
        grid=(parts, blocks),
        grid_names=("part", "block"),  # blocks that read the same part run side by side
        kernel_name="unembed_moments",
        cost_estimate=pl.CostEstimate(
            flops=2 * row_states.size * vocabulary * (1 if groups == 1 else 2),
            transcendentals=groups * rows * vocabulary * (1 if groups == 1 else 3),
            bytes_accessed=unembedding.nbytes + row_states.nbytes + 4 * keep_logits * rows * vocabulary,
        ),
        interpret=interpreter(interpret),
        scratch_types=dict(
            scratch=_Scratch(
                row_states=operand,
                output=operand if groups > 1 else None,
                weights=shared((stages, columns), unembedding.dtype),
                pieces=None if exact else shared((3, columns)),
                logits=plgpu.SMEM((ROWS, COLUMNS), jnp.float32) if keep_logits else None,
                loaded=plgpu.Barrier(num_arrivals=2 + (groups > 1), num_barriers=stages),
            )
        ),
    )
    sums, top1, target, logits = kernel(row_states, output, unembedding, targets)

    def by_group(x: Array) -> Array:
        return jnp.roll(x[..., : groups * rows].reshape(*x.shape[:-1], groups, rows), -1, axis=-2)

    m, cross, second, l, a, b, *sums = by_group(sums)  # noqa: E741
    of_output = [x[:, -1] for x in sums]
    part_sums = UnembedSums(
        moments=Moments(m, l, a, b, jnp.zeros((*m.shape, 0))),
        r=tuple(of_output[: len(alphas)]),
        c=of_output[-1] if 0 in alphas else None,
        top1=by_group(top1),
        second=second[:, -1],
        cross=cross,
        target=None if target is None else target[:, :rows],
        logits=None,
    )
    return dataclasses.replace(part_sums.join(0, alphas), logits=logits[:rows, :vocabulary] if keep_logits else None)


class _Scratch(NamedTuple):
    """Shared memory of a thread block.

    Attributes:
      row_states: tiles in flight of the rows' hidden states.
      output: tiles in flight of the output's hidden states; None without lenses.
      weights: tiles in flight of the unembedding.
      pieces: bfloat16 pieces of a tile of the unembedding; None for bfloat16.
      logits: logits on their way to device memory; None unless kept.
      loaded: barriers of the tiles in flight.
    """

    row_states: Any
    output: Any
    weights: Any
    pieces: Any
    logits: Any
    loaded: Any


class _BlockState(NamedTuple):
    """State of a block's rows after some tiles, [ROWS] each.

    Attributes:
      m: largest logit.
      sums: sums about m.
      second: second largest logit.
      top1: index of the largest logit.
      target: logit of the target.
      output_m: largest logit of the output.
      output_l: Σ e^u of the output.
      cross: sum of `cross_terms`.
    """

    m: Any
    sums: RunningSums
    second: Any
    top1: Any
    target: Any
    output_m: Any
    output_l: Any
    cross: Any


def _padded(x: Array, multiples: tuple[int, ...]) -> Array:
    """Pad x with zeros to multiples of these sizes: the copy engine copies whole tiles only."""
    return jnp.pad(x, [(0, _round_up(size, n) - size) for size, n in zip(x.shape, multiples, strict=True)])


def _round_up(size: int, multiple: int) -> int:
    return pl.cdiv(size, multiple) * multiple


def _part_of_rows(
    row_states: Any,
    output: Any,
    weights: Any,
    targets: Any,
    sums_out: Any,
    top1_out: Any,
    target_out: Any,
    logits_out: Any,
    *,
    scratch: _Scratch,
    vocabulary: int,
    tiles_of_part: int,
    alphas: Alphas,
    soft_cap: Cap,
) -> None:
    """Read one part of the vocabulary for one block of rows."""
    part, row = lax.axis_index("part"), lax.axis_index("block") * ROWS
    stages, columns, step_width = scratch.weights.shape
    first = part * tiles_of_part
    tiles = jnp.minimum(tiles_of_part, pl.cdiv(vocabulary, columns) - first)
    steps = weights.shape[1] // step_width
    block_rows = pl.ds(row, ROWS)

    def load(step: Any) -> None:
        slot, at = lax.rem(step, stages), pl.ds(lax.rem(step, steps) * step_width, step_width)
        loaded = scratch.loaded.at[slot]
        tile = pl.ds((first + lax.div(step, steps)) * columns, columns)
        plgpu.copy_gmem_to_smem(row_states.at[:, block_rows, at], scratch.row_states.at[slot], loaded)
        if output is not None:
            plgpu.copy_gmem_to_smem(output.at[:, block_rows, at], scratch.output.at[slot], loaded)
        plgpu.copy_gmem_to_smem(weights.at[tile, at], scratch.weights.at[slot], loaded)

    def multiply(step: Any, accumulators: Any) -> None:
        slot = lax.rem(step, stages)
        plgpu.barrier_wait(scratch.loaded.at[slot])
        if scratch.pieces is None:
            factors = [scratch.weights.at[slot]]
        else:
            factors = [scratch.pieces.at[i] for i in range(3)]
            remainder = scratch.weights[slot].astype(jnp.float32)
            for piece in factors:
                rounded = remainder.astype(jnp.bfloat16)
                piece[...] = rounded
                remainder = remainder - rounded.astype(jnp.float32)
            plgpu.commit_smem()
        for accumulator, operand in zip(accumulators, (scratch.row_states, scratch.output), strict=False):
            for i in range(operand.shape[1]):
                for piece in factors[: 3 - i]:
                    plgpu.wgmma(accumulator, operand.at[slot, i], piece.transpose((1, 0)))
        plgpu.wgmma_wait(0)
        pl.when(step + stages < tiles * steps)(lambda: load(step + stages))

    def products(tile: Any) -> Any:
        def accumulate(*accumulators: Any) -> list[Any]:
            lax.fori_loop(0, steps, lambda k, _: multiply(tile * steps + k, accumulators), None)
            return [accumulator[...] for accumulator in accumulators]

        shape = plgpu.ACC((ROWS, columns), jnp.float32)
        return pl.run_scoped(accumulate, *[shape] * (1 if output is None else 2))

    layout = plgpu.Layout.WGMMA.reduce(1)
    index = plgpu.broadcasted_iota(jnp.int32, (ROWS, COLUMNS), 1, layout=plgpu.Layout.WGMMA)
    target = None if targets is None else plgpu.load(targets.at[block_rows], layout=layout, optimized=False)

    def full(value: float, dtype: Any = jnp.float32) -> Any:
        return plgpu.layout_cast(jnp.full((ROWS,), value, dtype), layout)

    def wide(x: Any) -> Any:
        return lax.broadcast_in_dim(x, (ROWS, COLUMNS), (0,))

    def tile(i: Any, state: _BlockState) -> _BlockState:
        logits = products(i)
        for at in range(0, columns, COLUMNS):
            state = read([x[:, at : at + COLUMNS] for x in logits], (first + i) * columns + at, state)
        return state

    def read(products: list[Any], column: Any, state: _BlockState) -> _BlockState:
        """Return the state with some tokens added, given the rows' products and, with lenses, the output's."""
        tokens = index + column
        inside = tokens < vocabulary
        capped = (soft_capped(x, soft_cap) for x in products)
        logits, *output_logits = (jnp.where(inside, jnp.maximum(x, MASKED), MASKED) for x in capped)
        if logits_out is not None:
            pl.when(row < logits_out.shape[0])(lambda: store(logits, column))
        best = jnp.max(logits, axis=1)
        m = jnp.maximum(state.m, best)
        terms = sum_terms(logits, wide(m), alphas)
        before = shift_sums(state.sums, state.m - m, alphas)
        best_at = jnp.min(jnp.where(logits == wide(best), tokens, vocabulary), axis=1)
        next_best = jnp.max(jnp.where(tokens == wide(best_at), MASKED, logits), axis=1)
        new = state._replace(
            m=m,
            sums=jax.tree.map(lambda x, y: x + jnp.sum(y, axis=1), before, terms),
            second=jnp.maximum(jnp.maximum(state.second, next_best), jnp.minimum(state.m, best)),
            top1=jnp.where(best > state.m, best_at, state.top1),
        )
        if target is not None:
            target_logit = jnp.max(jnp.where(tokens == wide(target), logits, MASKED), axis=1)
            new = new._replace(target=jnp.maximum(state.target, target_logit))
        return compare(state, new, logits, *output_logits) if output_logits else new

    def compare(state: _BlockState, new: _BlockState, logits: Any, output_logits: Any) -> _BlockState:
        """Return `new` with the sums over a tile of the output's logits beside the row's own."""
        output_m = jnp.maximum(state.output_m, jnp.max(output_logits, axis=1))
        d = jnp.maximum(state.m - new.m, FLOOR)
        d_output = jnp.maximum(state.output_m - output_m, FLOOR)
        u, u_output = logits - wide(new.m), output_logits - wide(output_m)
        e = sum_terms(output_logits, wide(output_m)).l
        terms = cross_terms(e, u_output, u, output_logits <= MASKED, logits <= MASKED)
        return new._replace(
            output_m=output_m,
            output_l=jnp.exp(d_output) * state.output_l + jnp.sum(e, axis=1),
            cross=shift_cross(state.cross, state.output_l, d_output, d) + jnp.sum(terms, axis=1),
        )

    def store(logits: Any, column: Any) -> None:
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        plgpu.store(scratch.logits, logits, optimized=False)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(scratch.logits, logits_out.at[block_rows, pl.ds(column, COLUMNS)])

    for step in range(stages):
        pl.when(step < tiles * steps)(functools.partial(load, jnp.int32(step)))
    zero, masked = full(0.0), full(MASKED)
    state = lax.fori_loop(
        0,
        tiles,
        tile,
        _BlockState(
            m=masked,
            sums=empty_sums(zero, alphas),
            second=masked,
            top1=full(0, jnp.int32),
            target=masked,
            output_m=masked,
            output_l=zero,
            cross=zero,
        ),
    )
    for i, value in enumerate((state.m, state.cross, state.second, *jax.tree.leaves(state.sums))):
        plgpu.store(sums_out.at[i, part, block_rows], value, optimized=False)
    plgpu.store(top1_out.at[part, block_rows], state.top1, optimized=False)
    if target is not None:
        plgpu.store(target_out.at[part, block_rows], state.target, optimized=False)
    plgpu.wait_smem_to_gmem(0)
