"""prefill_attention for Hopper GPUs: blocks of 64 rows, each over the slots that its queries see.

The first visible slot is left out of the sums and added afterwards, in plain JAX, and so are the shares of a split
sequence joined: both by the moment algebra.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ..attention import AttentionSums, positions, with_sink
from ..attention_gpu import (
    ROWS,
    SLOTS,
    Plan,
    along_rows,
    iota,
    joined,
    parts_of,
    product,
    queries_of,
    rows_of,
    sweep,
    tiled,
)
from ..attention_gpu import refuses as refuses
from ..moments import FLOOR, MASKED, Moments
from ..soft_cap import soft_capped

SHARE = 256  # slots: no share of a row goes below


def prefill_attention(
    q, k, v, start, *, scale, window, soft_cap, moments, interpret=False, name="prefill_attention"
) -> AttentionSums:
    _, queries, heads, _ = q.shape
    kv_heads, slots = k.shape[1], k.shape[3]
    group = heads // kv_heads
    position = positions(q, start)
    first = jnp.zeros_like(position) if window is None else jnp.maximum(position - window + 1, 0)
    plan = Plan.of(first + 1 if moments else first, position, group, slots, kv_heads, SHARE)
    options = {"scale": scale, "soft_cap": soft_cap}
    sums = weighted_sums(rows_of(q, kv_heads), k, v, plan, moments=moments, interpret=interpret, name=name, **options)
    out, rest = jax.tree.map(lambda x: queries_of(x, queries, group), sums)
    if not moments:
        return AttentionSums((out / jnp.where(rest.l == 0, 1.0, rest.l)[..., None]).astype(q.dtype), None, None)
    sink, value = first_slot(q, k, v, first, position, **options)
    whole = with_sink(rest, sink)
    of_rest, of_sink = (jnp.exp(jnp.maximum(m - whole.m, FLOOR)) * whole.p_max for m in (rest.m, sink))
    return AttentionSums((out * of_rest[..., None] + value * of_sink[..., None]).astype(q.dtype), sink, rest)


def weighted_sums(rows, k, v, plan, *, scale, soft_cap, moments, interpret, name):
    """Σ e^u v [B, K, R, H] of the slots that each row counts, and their Moments; a and b are 0 without `moments`."""
    h, parts = rows.shape[3], parts_of(rows.dtype)
    carried = 3 if moments else 1

    def step(block, carry, weights_smem):
        out, m, *sums = carry
        new, sums, weights = joined(m, sums, block.scores)
        for part in range(parts):
            rounded = weights.astype(jnp.bfloat16)
            weights_smem[part] = rounded
            weights = weights - rounded.astype(jnp.float32)

        @pl.when(block.slot + SLOTS > block.end)
        def _():
            held = block.slot + iota((SLOTS, h), 0) < block.end
            for ref in block.values:
                ref[...] = jnp.where(held, ref[...], jnp.bfloat16(0))

        plgpu.commit_smem()
        out = out * along_rows(jnp.exp(jnp.maximum(m - new, FLOOR)), h)
        return out + product([weights_smem.at[part] for part in range(parts)], block.values), new, *sums

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
        scratch=[plgpu.SMEM((parts, ROWS, SLOTS), jnp.bfloat16, transforms=tiled(h))],
    )
    l, a, b = (*sums, *[jnp.zeros_like(m)] * (3 - carried))  # noqa: E741 (its name in the definition)
    whole = Moments(m, l, a, b, jnp.zeros((*m.shape, 0))).merge_axis(0)
    out = out[..., : v.shape[3]] * jnp.exp(jnp.maximum(m - whole.m, FLOOR))[..., None]
    return jnp.sum(out, axis=0), whole


def first_slot(q, k, v, first, position, *, scale, soft_cap):
    """Score [B, T, N] and value [B, T, N, H] of each query's first visible slot; `MASKED` and 0 where there is none."""
    b, t, n, h = q.shape
    kv_heads = k.shape[1]
    key = jnp.take_along_axis(k, first[:, None, None], axis=3)
    value = jnp.take_along_axis(v, first[:, None, :, None], axis=2).astype(jnp.float32)
    scores = jnp.einsum(
        "btkgh,bkht->btkg",
        q.reshape(b, t, kv_heads, -1, h),
        key,
        precision=jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
    seen = (position >= 0)[..., None]
    sink = jnp.where(seen, soft_capped(scores * scale, soft_cap).reshape(b, t, n), MASKED)
    value = jnp.repeat(jnp.moveaxis(value, 1, 2), n // kv_heads, axis=2)
    return sink, jnp.where(seen[..., None], value, 0.0)
