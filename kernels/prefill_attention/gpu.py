"""Prefill attention for Hopper GPUs: blocks of 64 rows, each over the slots that its queries see.

The sums exclude the first visible slot. Plain JAX adds it afterwards, and merges the shares of a split sequence; both
by the moment algebra.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from ..attention import (
    AttentionSums,
    Keys,
    PerQuery,
    Queries,
    Starts,
    Values,
    Window,
    first_visible,
    merge_sink,
    positions,
    weight_of,
)
from ..attention_gpu import (
    ROWS,
    SLOTS,
    ScoreBlock,
    SlotPlan,
    add_scores,
    along_rows,
    by_query,
    iota,
    piece_count,
    product,
    rows_of,
    sweep,
    tiled,
)
from ..attention_gpu import refuses as refuses
from ..moments import FLOOR, MASKED, Moments
from ..precision import einsum
from ..soft_cap import Cap, soft_capped

SHARE = 256  # smallest number of slots in a share of a row


def prefill_attention(
    q: Queries,
    k: Keys,
    v: Values,
    start: Starts,
    *,
    scale: float,
    window: Window,
    soft_cap: Cap,
    moments: bool,
    logsumexp: bool,
    interpret: bool = False,
    name: str = "prefill_attention",
) -> AttentionSums:
    """Compute prefill_attention on a Hopper GPU."""
    _, queries, heads, _ = q.shape
    kv_heads, slots = k.shape[1], k.shape[3]
    group = heads // kv_heads
    position = positions(q, start)
    first = first_visible(position, window)
    plan = SlotPlan.of(first + 1 if moments else first, position, group, slots, kv_heads, SHARE)
    options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap}
    sums = weighted_sums(rows_of(q, kv_heads), k, v, plan, moments=moments, interpret=interpret, name=name, **options)
    out, counted = jax.tree.map(lambda x: by_query(x, queries, group), sums)
    if not moments:
        out = (out / jnp.where(counted.l == 0, 1.0, counted.l)[..., None]).astype(q.dtype)
        return AttentionSums(out, logsumexp=counted.logsumexp if logsumexp else None)
    sink_score, sink_value = first_slot(q, k, v, first, position, **options)
    all_keys = merge_sink(counted, sink_score)
    share, sink_share = (weight_of(score, all_keys)[..., None] for score in (counted.m, sink_score))
    return AttentionSums((out * share + sink_value * sink_share).astype(q.dtype), sink_score, counted)


def weighted_sums(
    rows: Float[Array, "B K R H"],
    k: Keys,
    v: Values,
    plan: SlotPlan,
    *,
    scale: float,
    soft_cap: Cap,
    moments: bool,
    interpret: bool,
    name: str,
) -> tuple[Float[Array, "B K R H"], Moments]:
    """Return Σ e^u v of the slots that each row counts, and their moments; a and b are 0 without `moments`."""
    h, pieces = rows.shape[3], piece_count(rows.dtype)
    carried = 3 if moments else 1

    def step(block: ScoreBlock, carry: tuple[Array, ...], weights_smem: Any) -> tuple[Array, ...]:
        out, m, *sums = carry
        new_m, sums, weights = add_scores(m, sums, block.scores)
        for piece in range(pieces):
            rounded = weights.astype(jnp.bfloat16)
            weights_smem[piece] = rounded
            weights = weights - rounded.astype(jnp.float32)

        @pl.when(block.slot + SLOTS > block.end)
        def _() -> None:
            filled = block.slot + iota((SLOTS, h), 0) < block.end
            for ref in block.values:
                ref[...] = jnp.where(filled, ref[...], jnp.bfloat16(0))

        plgpu.commit_smem()
        out = out * along_rows(jnp.exp(jnp.maximum(m - new_m, FLOOR)), h)
        return out + product([weights_smem.at[piece] for piece in range(pieces)], block.values), new_m, *sums

    out, m, *sums = sweep(
        step,
        [((ROWS, h), 0.0), ((ROWS,), MASKED), *[((ROWS,), 0.0)] * carried],
        rows,
        k,
        v,
        plan,
        scale=scale,
        soft_cap=soft_cap,
        name=name,
        interpret=interpret,
        scratch=[plgpu.SMEM((pieces, ROWS, SLOTS), jnp.bfloat16, transforms=tiled(h))],
    )
    l, a, b = (*sums, *[jnp.zeros_like(m)] * (3 - carried))  # noqa: E741 (its name in the definition)
    merged = Moments(m, l, a, b, jnp.zeros((*m.shape, 0))).merge_axis(0)
    out = out[..., : v.shape[3]] * jnp.exp(jnp.maximum(m - merged.m, FLOOR))[..., None]
    return jnp.sum(out, axis=0), merged


def first_slot(
    q: Queries, k: Keys, v: Values, first: PerQuery, position: PerQuery, *, scale: float, soft_cap: Cap
) -> tuple[Float[Array, "B T N"], Float[Array, "B T N H"]]:
    """Return the score and value of each query's first visible slot; `MASKED` and 0 for a query that sees none."""
    b, t, n, h = q.shape
    kv_heads = k.shape[1]
    key = jnp.take_along_axis(k, first[:, None, None], axis=3)
    value = jnp.take_along_axis(v, first[:, None, :, None], axis=2).astype(jnp.float32)
    scores = einsum("btkgh,bkht->btkg", q.reshape(b, t, kv_heads, -1, h), key, jnp.float32)
    sees_key = (position >= 0)[..., None]
    score = jnp.where(sees_key, soft_capped(scores * scale, soft_cap).reshape(b, t, n), MASKED)
    value = jnp.repeat(jnp.moveaxis(value, 1, 2), n // kv_heads, axis=2)
    return score, jnp.where(sees_key[..., None], value, 0.0)
