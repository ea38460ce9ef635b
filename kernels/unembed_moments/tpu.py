"""unembed_moments for TPUs (Mosaic): the product a tile of the vocabulary at a time, its logits read where they fall.

A block holds some of the output's rows and the lens rows that are compared with them, and meets every tile of the
unembedding: one product, then its rows eight at a time, those of the output first. For up to some hundreds of rows
there is one block, and the unembedding is read once.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..moments import FLOOR, MASKED, Moments
from ..soft_cap import soft_capped
from ..tiles import Sums, moved
from ..tpu_tiles import (
    LANES,
    LARGEST_INDEX,
    SUBLANES,
    Top,
    add,
    interpreter,
    no_sums,
    no_top,
    of_tile,
    packed,
    total,
    unpacked,
    with_top,
)
from .tpu_blocks import Blocks
from .types import UnembedSums

SERVED = (jnp.float32, jnp.bfloat16)


class _Rows(NamedTuple):
    """What is known of rows after some tiles; `cross` is of lens rows, `target` and the Rényi sums of the output's."""

    top: Top
    sums: Sums
    cross: Any
    target: Any


def refuses(hidden, unembedding, *, alphas, soft_cap, targets, keep_logits):
    if hidden.dtype not in SERVED or unembedding.dtype not in SERVED:
        return f"takes float32 and bfloat16, and these are {hidden.dtype} and {unembedding.dtype}"
    size = len(unembedding)
    return None if size <= LARGEST_INDEX else f"a vocabulary of {size} is larger than 2**24"


def unembed_moments(hidden, unembedding, *, alphas, soft_cap, targets, keep_logits, interpret=False):
    groups, rows, width = hidden.shape
    size = len(unembedding)
    hidden = hidden.astype(jnp.promote_types(hidden.dtype, unembedding.dtype))
    blocks = Blocks.of(groups, rows, size, width, hidden.dtype.itemsize)
    wanted = jnp.full(rows, -1, jnp.int32) if targets is None else targets
    state = jax.eval_shape(lambda: packed(_nothing(blocks.count * blocks.size, alphas)))
    kept = rows if blocks.count == 1 else blocks.rows
    beside = pltpu.VMEM((blocks.beside, blocks.tokens), jnp.float32)
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
            beside,
            beside,
            pltpu.VMEM((blocks.beside, LANES), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=2 * blocks.count * blocks.size * unembedding.size,
            transcendentals=blocks.count * blocks.size * size,
            bytes_accessed=blocks.count * unembedding.nbytes + hidden.nbytes,
        ),
        interpret=interpreter(interpret),
        name="unembed_moments",
    )(blocks.of_output(wanted), blocks.arranged(hidden), unembedding)
    found = jax.tree.map(lambda x: x[..., 0], unpacked(blocks.by_group(result, rows), _nothing(1, alphas)))
    sums = found.sums
    return UnembedSums(
        moments=Moments(found.top.largest, sums.l, sums.a, sums.b, jnp.zeros((groups, rows, 0), jnp.float32)),
        r=jnp.stack([r[-1] for r in sums.r], axis=1) if alphas else jnp.zeros((rows, 0), jnp.float32),
        top1=found.top.index.astype(jnp.int32),
        second=found.top.second[-1],
        cross=found.cross,
        target=None if targets is None else found.target[-1],
        logits=logits[0] if keep_logits else None,
    )


def _nothing(rows, alphas):
    zero, masked = jnp.zeros((rows, 1), jnp.float32), jnp.full((rows, 1), MASKED, jnp.float32)
    return _Rows(no_top(rows), no_sums(rows, alphas), zero, masked)


def _kernel(targets_ref, hidden_ref, unembedding_ref, state_ref, *refs, blocks, size, alphas, soft_cap, keep_logits):
    """One tile of the unembedding for one block: its share of the product and, once that is whole, of the sums."""
    kept_refs, (logits_ref, u_ref, e_ref, output_ref) = refs[:keep_logits], refs[keep_logits:]
    j, k = pl.program_id(1), pl.program_id(2)
    first = j * blocks.tokens

    @pl.when((j == 0) & (k == 0))
    def _():
        state_ref[...] = packed(_nothing(blocks.size, alphas))

    product = _product(hidden_ref[...], unembedding_ref[...].astype(hidden_ref.dtype))

    @pl.when(k == 0)
    def _():
        logits_ref[...] = product

    @pl.when(k > 0)
    def _():
        logits_ref[...] += product

    def read(at):
        """Of eight rows: their scores, what was known of them, and their u, e^u, top and sums."""
        scores = soft_capped(logits_ref[at, :], soft_cap)
        tokens = first + lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        scores = jnp.where(tokens < size, scores, MASKED)
        old = unpacked(state_ref[at, :], _nothing(SUBLANES, alphas))
        top = with_top(old.top, scores, first)
        return scores, tokens, old, top, jnp.maximum(old.top.largest - top.largest, FLOOR)

    def of_output(i, _):
        at = _eight(i)
        scores, tokens, old, top, d = read(at)
        u, e, sums = of_tile(scores, top.largest, alphas)
        hit = tokens == targets_ref[at, :]
        here = total(hit.astype(jnp.float32)) > 0
        target = jnp.where(here, total(jnp.where(hit, scores, 0.0)), old.target)
        state_ref[at, :] = packed(_Rows(top, add(moved(old.sums, d, alphas), sums), old.cross, target))
        if blocks.lens:
            u_ref[at, :], e_ref[at, :], output_ref[at, :] = u, e, packed((d, old.sums.l))
        if keep_logits:
            logits_ref[at, :] = scores

    def of_lens(i, _):
        at, beside = _eight(blocks.output // SUBLANES + i), _eight(i % (blocks.output // SUBLANES))
        scores, _, old, top, d = read(at)
        u, _, sums = of_tile(scores, top.largest)
        d_output, l_output = unpacked(output_ref[beside, :], (0, 0))
        cross = jnp.exp(d_output) * (old.cross + l_output * (d_output - d))
        cross += total(e_ref[beside, :] * (u_ref[beside, :] - u))
        sums = add(moved(old.sums._replace(r=()), d), sums)._replace(r=old.sums.r)
        state_ref[at, :] = packed(_Rows(top, sums, cross, old.target))

    @pl.when(k == pl.num_programs(2) - 1)
    def _():
        lax.fori_loop(0, blocks.output // SUBLANES, of_output, None)
        lax.fori_loop(0, pl.cdiv(blocks.lens, SUBLANES), of_lens, None)
        for kept_ref in kept_refs:
            kept_ref[...] = logits_ref[: len(kept_ref)]


def _eight(i):
    return pl.ds(pl.multiple_of(i * SUBLANES, SUBLANES), SUBLANES)


def _product(x, y):
    """x yᵀ, with float32's own precision where that is what they are."""
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision, preferred_element_type=jnp.float32)
