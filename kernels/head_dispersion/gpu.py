"""head_dispersion for Hopper GPUs.

One query (decode): the scores of all heads from one read of the keys, small enough to stay in the cache of the chip
until XLA has taken their mixture. More queries (prefill): the maximum and the sum of every head's row first; then the
scores again, 64 queries by 64 slots, whose weights are added up over the heads and turned into entropy in registers.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from .. import attention_gpu
from ..attention import positions
from ..attention_gpu import (
    LANES,
    ROWS,
    SLOTS,
    Plan,
    along_rows,
    arithmetic,
    counted,
    filled,
    joined,
    load_rows,
    operands,
    padded,
    parts_of,
    product,
    queries_of,
    rows_kept,
    rows_of,
    stages,
    sweep,
    tiled,
)
from ..gpu_tiles import interpreter
from ..moments import FLOOR, MASKED, Moments, shifted
from ..soft_cap import soft_capped

SHARE = 256  # slots: no share of a row goes below

refuses = functools.partial(attention_gpu.refuses, arrays=1)


def head_dispersion(q, k, start, *, scale, window, soft_cap, interpret=False):
    _, queries, heads, _ = q.shape
    kv_heads, slots = k.shape[1], k.shape[3]
    group = heads // kv_heads
    options = {"scale": scale, "soft_cap": soft_cap, "interpret": interpret}
    last = positions(q, start)
    first = jnp.zeros_like(last) if window is None else jnp.maximum(last - window + 1, 0)
    plan = Plan.of(first, last, group, slots, kv_heads, SHARE)
    each, *scores = sums(rows_of(q, kv_heads), k, plan, keep_scores=queries == 1, **options)
    each = jax.tree.map(lambda x: queries_of(x, queries, group), each)
    if scores:
        mixture = mixture_of_one(queries_of(scores[0], 1, group), each, first, last)
    else:
        mixture = mixture_entropy(q, k, each, first, last, **options)
    return jnp.maximum(mixture - jnp.mean(each.entropy, axis=-1), 0.0)


def sums(rows, k, plan, *, scale, soft_cap, keep_scores, interpret):
    """Moments [B, K, R] of the slots that each row counts, and their scores [B, K, R, S] if kept."""
    b, kv_heads, _, _ = rows.shape
    kept = rows_kept(plan)
    slots = pl.cdiv(k.shape[3], SLOTS) * SLOTS

    def step(block, carry, *kept_at):
        m, *sums = carry
        if keep_scores:
            scores_smem, scores_gmem = kept_at
            scores_smem[...] = block.scores
            plgpu.commit_smem()
            to = scores_gmem.at[*block.place, :, pl.ds(block.slot, SLOTS)]
            plgpu.copy_smem_to_gmem(scores_smem.at[pl.ds(0, kept)], to)
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        new, sums, _ = joined(m, sums, block.scores)
        return new, *sums

    m, l, a, b_, *scores = sweep(  # noqa: E741 (its name in the definition)
        step,
        [((ROWS,), MASKED), *[((ROWS,), 0.0)] * 3],
        rows,
        k,
        None,
        plan,
        scale=scale,
        soft_cap=soft_cap,
        name="head_dispersion_sums",
        interpret=interpret,
        scratch=[plgpu.SMEM((ROWS, SLOTS), jnp.float32)] * keep_scores,
        outputs=[jax.ShapeDtypeStruct((b, kv_heads, kept, slots), jnp.float32)] * keep_scores,
    )
    return Moments(m, l, a, b_, jnp.zeros((*m.shape, 0))).merge_axis(0), *scores


def mixture_of_one(scores, each, first, last):
    """Entropy [B, 1] of the mean of the heads' weights, from scores [B, 1, N, S]; what is not visible holds garbage."""
    slots = jnp.arange(scores.shape[-1])
    visible = (slots >= first[..., None]) & (slots <= last[..., None])
    weights = jnp.exp(shifted(scores, each.m)) * each.p_max[..., None]
    return entropy_of(jnp.mean(jnp.where(visible[:, :, None], weights, 0.0), axis=2))


def entropy_of(weights):
    """−Σ x ln x over the last axis."""
    return -jnp.sum(weights * jnp.log(jnp.where(weights > 0, weights, 1.0)), axis=-1)


def mixture_entropy(q, k, each, first, last, *, scale, soft_cap, interpret):
    """Entropy [B, T] of the mean of the heads' weights, given the Moments [B, T, N] of each head's scores."""
    b, queries, heads, _ = q.shape
    kv_heads, parts = k.shape[1], parts_of(q.dtype)
    plan = Plan.of(first, last, 1, k.shape[3], 1, SLOTS)
    rows = rows_of(q, heads)
    h = rows.shape[3]
    shares, row_blocks = plan.blocks.shape[2], rows.shape[2] // ROWS
    pad = ((0, 0), (0, 0), (0, rows.shape[2] - queries))
    m, p_max = (jnp.pad(jnp.swapaxes(x, 1, 2), pad) for x in (each.m, each.p_max))

    def body(q_gmem, k_gmem, m_gmem, p_gmem, first_gmem, last_gmem, blocks_gmem, out_gmem):
        share, row = jax.lax.axis_index("share"), jax.lax.axis_index("row")
        batch, block = row // row_blocks, row % row_blocks
        mine = pl.ds(block * ROWS, ROWS)
        start, steps = (blocks_gmem[batch, block, share, i] for i in range(2))
        first, last = load_rows(first_gmem.at[batch, mine]), load_rows(last_gmem.at[batch, mine])

        def over_heads(i, entropy):
            visible = counted((start + i) * SLOTS, first, last)

            def one(indices, *refs):
                *refs, (weights,) = refs
                head = indices[0]
                scores = soft_capped(product(refs[:parts], refs[parts:]) * scale, soft_cap)
                u = jnp.maximum(scores - along_rows(load_rows(m_gmem.at[batch, head, mine]), SLOTS), FLOOR)
                here = jnp.exp(u) * along_rows(load_rows(p_gmem.at[batch, head, mine]), SLOTS)
                return (weights + jnp.where(visible, here, 0.0),)

            def spec(part, of, shape, index):
                def place(head):
                    return (part * b + batch) * of + head // (heads // of), *index

                return plgpu.BlockSpec((None, *shape), place, transforms=tiled(h))

            (weights,) = plgpu.emit_pipeline(
                one,
                grid=(heads,),
                in_specs=[
                    *(spec(part, heads, (ROWS, h), (block, 0)) for part in range(parts)),
                    *(spec(part, kv_heads, (h, SLOTS), (0, start + i)) for part in range(parts)),
                ],
                max_concurrent_steps=stages(parts, 0, 2 * h),
                init_carry=(filled((ROWS, SLOTS), 0.0),),
            )(*[q_gmem] * parts, *[k_gmem] * parts)
            return entropy + entropy_of(weights * (1 / heads))

        entropy = jax.lax.fori_loop(0, steps, over_heads, filled((ROWS,), 0.0))

        def store(entropy_smem):
            entropy_smem[...] = entropy
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(entropy_smem, out_gmem.at[share, batch, mine])
            plgpu.wait_smem_to_gmem(0)

        pl.run_scoped(store, plgpu.SMEM((ROWS,), jnp.float32))

    entropy = plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((shares, b, rows.shape[2]), jnp.float32),
        grid=(shares, b * row_blocks),
        grid_names=("share", "row"),
        cost_estimate=pl.CostEstimate(
            flops=2 * rows.size * k.shape[3],
            transcendentals=rows.size // h * k.shape[3],
            bytes_accessed=2 * parts * (rows.size + k.size),
        ),
        compiler_params=arithmetic(soft_cap),
        interpret=interpreter(interpret),
        kernel_name="head_dispersion_mixture",
    )(operands(rows), operands(padded(k, LANES, SLOTS)), m, p_max, *plan[:3])
    return jnp.sum(entropy, axis=0)[:, :queries]
