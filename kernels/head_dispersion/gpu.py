"""Head dispersion for Hopper GPUs.

One query (decode): one read of the keys gives the scores of all heads, which stay in the chip's cache until XLA has
computed their mixture. More queries (prefill): a first pass computes the maximum and the sums of every head's row. A
second pass computes the scores again, 64 queries by 64 slots, adds their weights up over the heads and turns them into
entropy in registers.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from .. import attention_gpu
from ..attention import Keys, PerQuery, Queries, Starts, Window, first_visible, positions
from ..attention_gpu import (
    LANES,
    ROWS,
    SLOTS,
    ScoreBlock,
    SlotPlan,
    add_scores,
    along_rows,
    arithmetic,
    by_query,
    counted,
    filled,
    kept_rows,
    load_rows,
    operands,
    padded,
    piece_count,
    pipeline_stages,
    product,
    rows_of,
    sweep,
    tiled,
)
from ..gpu_tiles import interpreter
from ..moments import FLOOR, MASKED, Moments, entropy_of, shifted
from ..soft_cap import Cap, soft_capped

SHARE = 256  # smallest number of slots in a share of a row

refuses = functools.partial(attention_gpu.refuses, arrays=1)


def head_dispersion(
    q: Queries, k: Keys, start: Starts, *, scale: float, window: Window, soft_cap: Cap, interpret: bool = False
) -> Float[Array, "B T"]:
    """Compute head_dispersion on a Hopper GPU."""
    _, queries, heads, _ = q.shape
    kv_heads, slots = k.shape[1], k.shape[3]
    group = heads // kv_heads
    options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap, "interpret": interpret}
    last = positions(q, start)
    first = first_visible(last, window)
    plan = SlotPlan.of(first, last, group, slots, kv_heads, SHARE)
    moments, *scores = head_moments(rows_of(q, kv_heads), k, plan, keep_scores=queries == 1, **options)
    moments = jax.tree.map(lambda x: by_query(x, queries, group), moments)
    if scores:
        mixed = stored_mixture_entropy(by_query(scores[0], 1, group), moments, first, last)
    else:
        mixed = mixture_entropy(q, k, moments, first, last, **options)
    return jnp.maximum(mixed - jnp.mean(moments.entropy, axis=-1), 0.0)


def head_moments(
    rows: Float[Array, "B K R H"],
    k: Keys,
    plan: SlotPlan,
    *,
    scale: float,
    soft_cap: Cap,
    keep_scores: bool,
    interpret: bool,
) -> tuple[Any, ...]:
    """Return the Moments [B, K, R] of the slots that each row counts, then their scores [B, K, R, S] if kept."""
    b, kv_heads, _, _ = rows.shape
    kept = kept_rows(plan)
    slots = pl.cdiv(k.shape[3], SLOTS) * SLOTS

    def step(block: ScoreBlock, carry: tuple[Array, ...], *score_refs: Any) -> tuple[Array, ...]:
        m, *sums = carry
        if keep_scores:
            scores_smem, scores_gmem = score_refs
            scores_smem[...] = block.scores
            plgpu.commit_smem()
            target = scores_gmem.at[*block.place, :, pl.ds(block.slot, SLOTS)]
            plgpu.copy_smem_to_gmem(scores_smem.at[pl.ds(0, kept)], target)
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        m, sums, _ = add_scores(m, sums, block.scores)
        return m, *sums

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


def stored_mixture_entropy(
    scores: Float[Array, "B 1 N S"], moments: Moments, first: Int[Array, "B 1"], last: Int[Array, "B 1"]
) -> Float[Array, "B 1"]:
    """Return the entropy of the mean of the heads' weights, from stored scores; invisible slots hold garbage."""
    slots = jnp.arange(scores.shape[-1])
    visible = (slots >= first[..., None]) & (slots <= last[..., None])
    weights = jnp.exp(shifted(scores, moments.m)) * moments.p_max[..., None]
    return entropy_of(jnp.mean(jnp.where(visible[:, :, None], weights, 0.0), axis=2))


def mixture_entropy(
    q: Queries,
    k: Keys,
    moments: Moments,
    first: PerQuery,
    last: PerQuery,
    *,
    scale: float,
    soft_cap: Cap,
    interpret: bool,
) -> Float[Array, "B T"]:
    """Return the entropy of the mean of the heads' weights, given the moments [B, T, N] of each head's scores."""
    b, queries, heads, _ = q.shape
    kv_heads, pieces = k.shape[1], piece_count(q.dtype)
    plan = SlotPlan.of(first, last, 1, k.shape[3], 1, SLOTS)
    rows = rows_of(q, heads)
    h = rows.shape[3]
    shares, row_blocks = plan.blocks.shape[2], rows.shape[2] // ROWS
    pad = ((0, 0), (0, 0), (0, rows.shape[2] - queries))
    m, p_max = (jnp.pad(jnp.swapaxes(x, 1, 2), pad) for x in (moments.m, moments.p_max))

    def body(
        q_gmem: Any,
        k_gmem: Any,
        m_gmem: Any,
        p_gmem: Any,
        first_gmem: Any,
        last_gmem: Any,
        blocks_gmem: Any,
        out_gmem: Any,
    ) -> None:
        share, row = jax.lax.axis_index("share"), jax.lax.axis_index("row")
        batch, block = row // row_blocks, row % row_blocks
        block_rows = pl.ds(block * ROWS, ROWS)
        start, steps = (blocks_gmem[batch, block, share, i] for i in range(2))
        first, last = load_rows(first_gmem.at[batch, block_rows]), load_rows(last_gmem.at[batch, block_rows])

        def over_heads(i: Int[Array, ""], entropy: Float[Array, " M"]) -> Float[Array, " M"]:
            visible = counted((start + i) * SLOTS, first, last)

            def add_head(indices: Any, *refs: Any) -> tuple[Array]:
                *tiles, (weights,) = refs
                head = indices[0]
                scores = soft_capped(product(tiles[:pieces], tiles[pieces:]) * scale, soft_cap)
                u = jnp.maximum(scores - along_rows(load_rows(m_gmem.at[batch, head, block_rows]), SLOTS), FLOOR)
                weight = jnp.exp(u) * along_rows(load_rows(p_gmem.at[batch, head, block_rows]), SLOTS)
                return (weights + jnp.where(visible, weight, 0.0),)

            def spec(piece: int, array_heads: int, shape: tuple[int, int], index: tuple[Any, Any]) -> plgpu.BlockSpec:
                def place(head: Any) -> tuple[Any, ...]:
                    return (piece * b + batch) * array_heads + head // (heads // array_heads), *index

                return plgpu.BlockSpec((None, *shape), place, transforms=tiled(h))

            (weights,) = plgpu.emit_pipeline(
                add_head,
                grid=(heads,),
                in_specs=[
                    *(spec(piece, heads, (ROWS, h), (block, 0)) for piece in range(pieces)),
                    *(spec(piece, kv_heads, (h, SLOTS), (0, start + i)) for piece in range(pieces)),
                ],
                max_concurrent_steps=pipeline_stages(pieces, 0, 2 * h),
                init_carry=(filled((ROWS, SLOTS), 0.0),),
            )(*[q_gmem] * pieces, *[k_gmem] * pieces)
            return entropy + entropy_of(weights * (1 / heads))

        entropy = jax.lax.fori_loop(0, steps, over_heads, filled((ROWS,), 0.0))

        def store(entropy_smem: Any) -> None:
            entropy_smem[...] = entropy
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(entropy_smem, out_gmem.at[share, batch, block_rows])
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
            bytes_accessed=2 * pieces * (rows.size + k.size),
        ),
        compiler_params=arithmetic(soft_cap),
        interpret=interpreter(interpret),
        kernel_name="head_dispersion_mixture",
    )(operands(rows), operands(padded(k, LANES, SLOTS)), m, p_max, *plan[:3])
    return jnp.sum(entropy, axis=0)[:, :queries]
