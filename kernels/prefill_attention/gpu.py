"""Prefill attention for Hopper GPUs: blocks of 64 rows, each over the slots that its queries see.

The sums exclude slot 0. Plain JAX adds it afterwards, and merges the shares of a split sequence; both by the moment
algebra.
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
    PositionSums,
    Queries,
    Starts,
    Values,
    Window,
    first_visible,
    key_scores,
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
from ..soft_cap import Cap

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
    prompt_length: Starts | None,
    interpret: bool = False,
    name: str = "prefill_attention",
) -> AttentionSums:
    """Compute prefill_attention on a Hopper GPU."""
    _, queries, heads, _ = q.shape
    kv_heads, slots = k.shape[1], k.shape[3]
    group = heads // kv_heads
    position = positions(q, start)
    first = first_visible(position, window)
    plan = SlotPlan.of(jnp.maximum(first, int(moments)), position, group, slots, kv_heads, SHARE, prompt_length)
    options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap}
    sums = weighted_sums(rows_of(q, kv_heads), k, v, plan, moments=moments, interpret=interpret, name=name, **options)
    out, counted, prompt_sum = jax.tree.map(lambda x: by_query(x, queries, group), sums)
    if not moments:
        out = (out / jnp.where(counted.l == 0, 1.0, counted.l)[..., None]).astype(q.dtype)
        return AttentionSums(out, logsumexp=counted.logsumexp if logsumexp else None)
    singles = jnp.zeros_like(position), position, position - 1
    sink, own, previous = (key_scores(q, k, slot, (slot >= first) & (slot <= position), **options) for slot in singles)
    all_keys = merge_sink(counted, sink)
    share, sink_share = (weight_of(score, all_keys) for score in (counted.m, sink))
    prompt_mass = None
    if prompt_length is not None:
        prompt_mass = prompt_sum * share + jnp.where(prompt_length[:, None, None] > 0, sink_share, 0.0)
    sink_value = jnp.repeat(v[:, None, :, 0].astype(jnp.float32), group, axis=2)
    sink_value = jnp.where(sink[..., None] > MASKED, sink_value, 0.0)  # slot 0 of an empty row may hold NaN
    out = out * share[..., None] + sink_value * sink_share[..., None]
    return AttentionSums(out.astype(q.dtype), counted, PositionSums(sink, own, previous, prompt_mass))


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
) -> tuple[Float[Array, "B K R H"], Moments, Float[Array, "B K R"]]:
    """Return Σ e^u v of the slots that each row counts, their moments, and Σ e^u of those in the prompt.

    Without `moments`, a, b and the sum of the prompt are 0.
    """
    h, pieces = rows.shape[3], piece_count(rows.dtype)
    carried = 4 if moments else 1

    def step(block: ScoreBlock, carry: tuple[Array, ...], weights_smem: Any) -> tuple[Array, ...]:
        out, m, *sums = carry
        new_m, new_sums, weights = add_scores(m, sums[:3], block.scores)
        scaling = jnp.exp(jnp.maximum(m - new_m, FLOOR))
        if moments:
            in_prompt = block.slot + iota((ROWS, SLOTS), 1) < block.prompt
            new_sums.append(sums[3] * scaling + jnp.sum(jnp.where(in_prompt, weights, 0.0), axis=1))
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
        out = out * along_rows(scaling, h)
        return out + product([weights_smem.at[piece] for piece in range(pieces)], block.values), new_m, *new_sums

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
    l, a, b, prompt = (*sums, *[jnp.zeros_like(m)] * (4 - carried))  # noqa: E741 (its name in the definition)
    merged = Moments(m, l, a, b, jnp.zeros((*m.shape, 0))).merge_axis(0)
    scaling = jnp.exp(jnp.maximum(m - merged.m, FLOOR))
    out = out[..., : v.shape[3]] * scaling[..., None]
    return jnp.sum(out, axis=0), merged, jnp.sum(prompt * scaling, axis=0)
