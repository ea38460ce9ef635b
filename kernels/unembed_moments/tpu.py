"""unembed_moments for TPUs (Mosaic): one tile of the vocabulary at a time, its logits read from VMEM.

A block holds some of the output's rows and the lens rows that are compared with them, and reads every tile of the
unembedding: one product, then its rows eight at a time, the output's first. Up to some hundreds of rows form one block,
and the unembedding is read once.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from ..moments import FLOOR, MASKED, Alphas, Moments, cross_terms
from ..precision import mosaic_precision
from ..soft_cap import Cap, soft_capped
from ..tiles import RunningSums, shift_sums
from ..tpu_tiles import (
    LANES,
    LARGEST_INDEX,
    SUBLANES,
    TopTwo,
    add_sums,
    empty_sums,
    empty_top,
    interpreter,
    packed,
    tile_sums,
    total,
    unpacked,
    update_top,
)
from .tpu_blocks import UnembedBlocks
from .types import Hidden, Targets, Unembedding, UnembedSums, shift_cross

SERVED = (jnp.float32, jnp.bfloat16)


class _RowState(NamedTuple):
    """State of rows after some tiles.

    Attributes:
      top: top two logits.
      sums: sums about the largest logit; the Rényi sums and Σ u are the output's.
      cross: sum of `cross_terms` of lens rows.
      target: logit of the target of output rows.
    """

    top: TopTwo
    sums: RunningSums
    cross: Any
    target: Any


def refuses(hidden: Hidden, unembedding: Unembedding, **_: Any) -> str | None:
    """Return why the kernel cannot serve these arguments, or None."""
    if hidden.dtype not in SERVED or unembedding.dtype not in SERVED:
        return f"supports float32 and bfloat16, not {hidden.dtype} with {unembedding.dtype}"
    size = len(unembedding)
    return None if size <= LARGEST_INDEX else f"a vocabulary of {size} is larger than 2**24"


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
    """Compute unembed_moments on a TPU."""
    groups, rows, width = hidden.shape
    size = len(unembedding)
    hidden = hidden.astype(jnp.promote_types(hidden.dtype, unembedding.dtype))
    blocks = UnembedBlocks.of(groups, rows, size, width, hidden.dtype.itemsize)
    target_ids = jnp.full(rows, -1, jnp.int32) if targets is None else targets
    state = jax.eval_shape(lambda: packed(_empty_state(blocks.count * blocks.size, alphas)))
    kept = rows if blocks.count == 1 else blocks.rows
    kept_output = pltpu.VMEM((blocks.kept_output, blocks.tokens), jnp.float32)
    resident = pl.Buffered(1 if blocks.width == width else 2)
    result, *logits = pl.pallas_call(
        functools.partial(_kernel, blocks=blocks, size=size, alphas=alphas, soft_cap=soft_cap, keep_logits=keep_logits),
        grid=(blocks.count, pl.cdiv(size, blocks.tokens), width // blocks.width),
        in_specs=[
            pl.BlockSpec((blocks.output, 1), lambda i, j, k: (i, 0)),
            pl.BlockSpec((blocks.size, blocks.width), lambda i, j, k: (i, k), pipeline_mode=resident),
            pl.BlockSpec((blocks.tokens, blocks.width), lambda i, j, k: (j, k)),
        ],
        out_specs=[
            pl.BlockSpec((blocks.size, state.shape[1]), lambda i, j, k: (i, 0)),
            pl.BlockSpec((kept, blocks.tokens), lambda i, j, k: (i, j)),
        ][: 1 + keep_logits],
        out_shape=[state, jax.ShapeDtypeStruct((rows, size), jnp.float32)][: 1 + keep_logits],
        scratch_shapes=[
            pltpu.VMEM((blocks.size, blocks.tokens), jnp.float32),
            kept_output,
            kept_output,
            pltpu.VMEM((blocks.kept_output, LANES), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=2 * blocks.count * blocks.size * unembedding.size,
            transcendentals=blocks.count * blocks.size * size,
            bytes_accessed=blocks.count * unembedding.nbytes + hidden.nbytes,
        ),
        interpret=interpreter(interpret),
        name="unembed_moments",
    )(blocks.arranged_output(target_ids), blocks.arranged(hidden), unembedding)
    state = jax.tree.map(lambda x: x[..., 0], unpacked(blocks.by_group(result, rows), _empty_state(1, alphas)))
    top, sums = state.top, state.sums
    return UnembedSums(
        moments=Moments(top.largest, sums.l, sums.a, sums.b, jnp.zeros((groups, rows, 0), jnp.float32)),
        r=tuple(r[-1] for r in sums.r),
        c=None if sums.c is None else sums.c[-1],
        top1=top.index.astype(jnp.int32),
        second=top.second[-1],
        cross=state.cross,
        target=None if targets is None else state.target[-1],
        logits=logits[0] if keep_logits else None,
    )


def _empty_state(rows: int, alphas: Alphas) -> _RowState:
    zero, masked = jnp.zeros((rows, 1), jnp.float32), jnp.full((rows, 1), MASKED, jnp.float32)
    return _RowState(empty_top(rows), empty_sums(rows, alphas), zero, masked)


def _kernel(*refs: Any, blocks: UnembedBlocks, size: int, alphas: Alphas, soft_cap: Cap, keep_logits: bool) -> None:
    """Add one tile of the unembedding to one block: to the product and, when that is complete, to the sums."""
    targets_ref, hidden_ref, unembedding_ref, state_ref, *rest = refs
    kept_refs, (logits_ref, u_ref, e_ref, output_ref) = rest[:keep_logits], rest[keep_logits:]
    j, k = pl.program_id(1), pl.program_id(2)
    first = j * blocks.tokens

    @pl.when((j == 0) & (k == 0))
    def _() -> None:
        state_ref[...] = packed(_empty_state(blocks.size, alphas))

    product = _product(hidden_ref[...], unembedding_ref[...].astype(hidden_ref.dtype))

    @pl.when(k == 0)
    def _() -> None:
        logits_ref[...] = product

    @pl.when(k > 0)
    def _() -> None:
        logits_ref[...] += product

    def read(at: Any) -> tuple[Any, Any, _RowState, TopTwo, Any]:
        """Return the scores, token ids, old state, new top two and shift of the maximum of eight rows."""
        scores = soft_capped(logits_ref[at, :], soft_cap)
        tokens = first + lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        scores = jnp.where(tokens < size, scores, MASKED)
        old = unpacked(state_ref[at, :], _empty_state(SUBLANES, alphas))
        top = update_top(old.top, scores, first)
        return scores, tokens, old, top, old.top.largest - top.largest

    def add_output(i: Any, _: None) -> None:
        at = _eight(i)
        scores, tokens, old, top, d = read(at)
        u, e, sums = tile_sums(scores, top.largest, alphas)
        hit = tokens == targets_ref[at, :]
        has_target = total(hit.astype(jnp.float32)) > 0
        target = jnp.where(has_target, total(jnp.where(hit, scores, 0.0)), old.target)
        sums = add_sums(shift_sums(old.sums, d, alphas), sums)
        state_ref[at, :] = packed(_RowState(top, sums, old.cross, target))
        if blocks.lens:
            u_ref[at, :], e_ref[at, :], output_ref[at, :] = u, e, packed((jnp.maximum(d, FLOOR), old.sums.l))
        if keep_logits:
            logits_ref[at, :] = scores

    def add_lens(i: Any, _: None) -> None:
        at, output_at = _eight(blocks.output // SUBLANES + i), _eight(i % (blocks.output // SUBLANES))
        scores, _, old, top, d = read(at)
        u, _, sums = tile_sums(scores, top.largest)
        d_output, l_output = unpacked(output_ref[output_at, :], (0, 0))
        u_output = u_ref[output_at, :]
        # `tile_sums` cuts u at MASKED; the output's scores themselves are not kept.
        terms = cross_terms(e_ref[output_at, :], u_output, u, u_output <= MASKED / 2, scores <= MASKED)
        cross = shift_cross(old.cross, l_output, d_output, jnp.maximum(d, FLOOR)) + total(terms)
        lens_sums = old.sums._replace(r=(), c=None)
        sums = add_sums(shift_sums(lens_sums, d), sums)._replace(r=old.sums.r, c=old.sums.c)
        state_ref[at, :] = packed(_RowState(top, sums, cross, old.target))

    @pl.when(k == pl.num_programs(2) - 1)
    def _() -> None:
        lax.fori_loop(0, blocks.output // SUBLANES, add_output, None)
        lax.fori_loop(0, pl.cdiv(blocks.lens, SUBLANES), add_lens, None)
        for kept_ref in kept_refs:
            kept_ref[...] = logits_ref[: len(kept_ref)]


def _eight(i: Any) -> Any:
    """Return the slice of the i-th eight rows."""
    return pl.ds(pl.multiple_of(i * SUBLANES, SUBLANES), SUBLANES)


def _product(x: Float[Array, "R D"], y: Float[Array, "V D"]) -> Float[Array, "R V"]:
    """Return x yᵀ in float32."""
    dimensions, precision = (((1,), (1,)), ((), ())), mosaic_precision(x, y)
    return lax.dot_general(x, y, dimensions, precision, preferred_element_type=jnp.float32)
