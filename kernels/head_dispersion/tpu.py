"""Head dispersion for TPUs (Mosaic).

One query per row reads the keys once and keeps the scores of all heads on the chip, if they fit. Otherwise blocks of
queries read the keys twice: for each head's sums, then for the mixture of all heads, one block of slots at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from ..attention import Keys, Queries, Starts, group_heads
from ..attention_tpu import AttentionBlocks, tile_scores
from ..attention_tpu import refuses as refuses
from ..moments import MASKED
from ..soft_cap import Cap
from ..tiles import RunningSums, shift_sums
from ..tpu_tiles import LANES, add_sums, interpreter, largest_of, mask_absent, packed, tile_sums, total, unpacked

KEY_BYTES = 1 << 20  # bytes of keys that one step reads
CHIP_BYTES = 8 << 20  # bytes of scores, keys and queries that decoding may hold at once
QUERIES = 256  # largest number of queries in a block
SLOTS = 512  # slots of a block
STATE_BYTES = 2 << 20  # bytes of every head's sums for a block of queries
QUERY_BYTES = 1 << 20  # bytes of a block of queries, the heads of a group together


def head_dispersion(
    q: Queries, k: Keys, start: Starts, *, scale: float, window: int | None, soft_cap: Cap, interpret: bool = False
) -> Float[Array, "B T"]:
    """Compute head_dispersion on a TPU, in one pass over the keys where the scores fit the chip."""
    one_pass = q.shape[1] == 1 and _chip_bytes(q, k, _slots_of_step(k)) <= CHIP_BYTES
    run = _in_one_pass if one_pass else _in_two_passes
    return run(q, k, start, scale, window, soft_cap, interpret)


def _slots_of_step(k: Keys) -> int:
    """Return the number of slots of all KV heads that a step of the single pass reads."""
    _, kv_heads, h, keys = k.shape
    tiles = KEY_BYTES // (LANES * kv_heads * h * k.dtype.itemsize)
    return LANES * min(max(tiles, 1), pl.cdiv(keys, LANES))


def _chip_bytes(q: Queries, k: Keys, slots: int) -> int:
    """Return the bytes that the single pass holds: every score once, keys and queries twice."""
    heads, width = q.shape[2], k.shape[1] * k.shape[2]
    scores = heads * pl.cdiv(k.shape[3], slots) * slots * 4
    return scores + 2 * width * (slots * k.dtype.itemsize + heads * q.dtype.itemsize)


def _in_one_pass(
    q: Queries, k: Keys, start: Starts, scale: float, window: int | None, soft_cap: Cap, interpret: bool
) -> Float[Array, "B T"]:
    """Read the keys once, with every score kept on the chip."""
    b, _, n, h = q.shape
    kv_heads, keys = k.shape[1], k.shape[3]
    width = kv_heads * h
    blocks = AttentionBlocks(1, keys, 1, 1, _slots_of_step(k), window)
    # Each query beside zeros for the other KV heads: one product gives the scores of all heads.
    same_head = jnp.eye(kv_heads, dtype=bool)[:, None, :, None]
    rows = jnp.where(same_head, q.reshape(b, kv_heads, n // kv_heads, 1, h), 0).reshape(b, n, width)
    column = pltpu.VMEM((1, n, 1), jnp.float32)
    result = pl.pallas_call(
        functools.partial(_one_pass_kernel, blocks=blocks, scale=scale, soft_cap=soft_cap),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(b, blocks.slot_blocks),
            in_specs=[
                pl.BlockSpec((1, n, width), lambda b, j, start: (b, 0, 0)),
                pl.BlockSpec(
                    (1, width, blocks.slot_block), lambda b, j, start: (b, 0, blocks.slot_index(start[b], 0, j))
                ),
            ],
            out_specs=pl.BlockSpec((1, 1, 1), lambda b, j, start: (b, 0, 0)),
            scratch_shapes=[
                pltpu.VMEM((blocks.slot_blocks, 1, n, blocks.slot_block), jnp.float32),
                column,
                column,
                column,
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((b, 1, 1), jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=2 * q.size * keys, transcendentals=2 * b * n * keys, bytes_accessed=q.nbytes + k.nbytes
        ),
        interpret=interpreter(interpret),
        name="head_dispersion_decode",
    )(start, rows, k.reshape(b, width, keys))
    return result[:, 0]


def _one_pass_kernel(*refs: Any, blocks: AttentionBlocks, scale: float, soft_cap: Cap) -> None:
    """Add one block of slots to the sums of all heads; after the last one, mix the heads' weights."""
    start_ref, q_ref, k_ref, out_ref, scores_ref, m_ref, l_ref, a_ref = refs
    j = pl.program_id(1)
    start = start_ref[pl.program_id(0)]
    first_block, last_block, last_slot = blocks.visible_range(start, 0)

    @pl.when(j == 0)
    def _() -> None:
        m_ref[...] = jnp.full_like(m_ref, MASKED)
        l_ref[...] = a_ref[...] = jnp.zeros_like(l_ref)

    @pl.when((first_block + j <= last_block) & (last_slot >= 0))
    def _() -> None:
        scores = _masked_scores(q_ref[...], k_ref[...], scale, soft_cap, blocks, start, 0, first_block + j)
        scores_ref[j] = scores
        m = jnp.maximum(m_ref[...], largest_of(scores))
        before = shift_sums(RunningSums(l_ref[...], a_ref[...], 0.0), m_ref[...] - m)
        m_ref[...] = m
        l_ref[...], a_ref[...], *_ = add_sums(before, tile_sums(scores, m)[2])

    @pl.when(j == pl.num_programs(1) - 1)
    def _() -> None:
        m, l, a = m_ref[...], l_ref[...], a_ref[...]  # noqa: E741 (its name in the definition)

        def add_block(block: Int[Array, ""], entropy: Float[Array, "1 1 1"]) -> Float[Array, "1 1 1"]:
            mixture = jnp.mean(_weights(scores_ref[block], m, l), axis=1, keepdims=True)
            return entropy + _entropy_of(mixture)

        steps = jnp.where(last_slot >= 0, last_block - first_block + 1, 0)
        mixed = jax.lax.fori_loop(0, steps, add_block, jnp.zeros((1, 1, 1), jnp.float32))
        out_ref[...] = _not_negative(mixed - jnp.mean(_entropy(l, a), axis=1, keepdims=True))


def _in_two_passes(
    q: Queries, k: Keys, start: Starts, scale: float, window: int | None, soft_cap: Cap, interpret: bool
) -> Float[Array, "B T"]:
    """Read the keys twice for each block of queries: for each head's sums, then for the heads' mixture."""
    b, t, n, h = q.shape
    kv_heads, keys = k.shape[1], k.shape[3]
    group = n // kv_heads
    fitting = min(
        QUERIES,
        STATE_BYTES // (kv_heads * LANES * 4) // 16 * 16,
        QUERY_BYTES // (group * max(h, LANES) * q.dtype.itemsize) // 16 * 16,
    )
    block = min(t, max(fitting, 16))
    blocks = AttentionBlocks(t, keys, 1, block, min(SLOTS, pl.cdiv(keys, LANES) * LANES), window)

    def head_index(start: Any, i: Any, j: Any, head: Any) -> Any:
        """Return the KV head to read; the last one again (not re-read) where no slot is visible."""
        first, last, last_slot = blocks.visible_range(start, i)
        return jnp.where((first + j <= last) & (last_slot >= 0), head, kv_heads - 1)

    def queries(b: Any, i: Any, p: Any, j: Any, head: Any, start: Any) -> tuple[Any, ...]:
        return b, head_index(start[b], i, j, head), 0, i, 0

    def keys_of(b: Any, i: Any, p: Any, j: Any, head: Any, start: Any) -> tuple[Any, ...]:
        return b, head_index(start[b], i, j, head), 0, blocks.slot_index(start[b], i, j)

    column = pltpu.VMEM((block, 1), jnp.float32)
    state = jax.eval_shape(functools.partial(_empty_state, block, group))
    result = pl.pallas_call(
        functools.partial(_two_pass_kernel, blocks=blocks, heads=n, scale=scale, soft_cap=soft_cap),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(b, blocks.row_blocks, 2, blocks.slot_blocks, kv_heads),
            in_specs=[
                pl.BlockSpec((1, 1, group, block, h), queries),
                pl.BlockSpec((1, 1, h, blocks.slot_block), keys_of),
            ],
            out_specs=pl.BlockSpec((1, block, 1), lambda b, i, p, j, head, start: (b, i, 0)),
            scratch_shapes=[
                pltpu.VMEM((kv_heads, *state.shape), jnp.float32),
                pltpu.VMEM((block, blocks.slot_block), jnp.float32),
                column,
                column,
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((b, t, 1), jnp.float32),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * q.size * keys,
            transcendentals=2 * b * t * n * keys,
            bytes_accessed=q.nbytes + 2 * blocks.row_blocks * k.nbytes,
        ),
        interpret=interpreter(interpret),
        name="head_dispersion",
    )(start, group_heads(q, kv_heads), k)
    return result[..., 0]


def _two_pass_kernel(*refs: Any, blocks: AttentionBlocks, heads: int, scale: float, soft_cap: Cap) -> None:
    """Read one block of slots for one block of queries and the heads of one KV head, in the first or second pass."""
    start_ref, q_ref, k_ref, out_ref, state_ref, mixture_ref, mixed_ref, entropy_ref = refs
    i, second_pass, j, head = (pl.program_id(axis) for axis in range(1, 5))
    start = start_ref[pl.program_id(0)]
    first_block, last_block, last_slot = blocks.visible_range(start, i)
    visible = (first_block + j <= last_block) & (last_slot >= 0)
    group = q_ref.shape[2]
    last_head = head == pl.num_programs(4) - 1

    def head_states() -> list[tuple[Any, Any, Any]]:
        return unpacked(state_ref[head], [(0, 0, 0)] * group)

    def head_scores() -> Iterator[Any]:
        for g in range(group):
            q, k = q_ref[0, 0, g : g + 1], k_ref[0]
            yield _masked_scores(q, k, scale, soft_cap, blocks, start, i, first_block + j)[0]

    @pl.when((second_pass == 0) & (j == 0))
    def _() -> None:
        state_ref[head] = _empty_state(blocks.row_block, group)
        mixed_ref[...] = jnp.zeros_like(mixed_ref)
        entropy_ref[...] = jnp.zeros_like(entropy_ref)

    @pl.when((second_pass == 0) & visible)
    def _() -> None:
        state = []
        for scores, (m, l, a) in zip(head_scores(), head_states(), strict=True):  # noqa: E741
            new_m = jnp.maximum(m, largest_of(scores))
            before = shift_sums(RunningSums(l, a, 0.0), m - new_m)
            state += [(new_m, *add_sums(before, tile_sums(scores, new_m)[2])[:2])]
        state_ref[head] = packed(state)

    @pl.when((second_pass == 1) & (j == 0))
    def _() -> None:
        for _, l, a in head_states():  # noqa: E741 (its name in the definition)
            entropy_ref[...] += _entropy(l, a)

    @pl.when((second_pass == 1) & visible)
    def _() -> None:
        @pl.when(head == 0)
        def _() -> None:
            mixture_ref[...] = jnp.zeros_like(mixture_ref)

        for scores, (m, l, _) in zip(head_scores(), head_states(), strict=True):  # noqa: E741
            mixture_ref[...] += _weights(scores, m, l)

        @pl.when(last_head)
        def _() -> None:
            mixed_ref[...] += _entropy_of(mixture_ref[...] / heads)

    @pl.when((second_pass == 1) & (j == pl.num_programs(3) - 1) & last_head)
    def _() -> None:
        out_ref[0] = _not_negative(mixed_ref[...] - entropy_ref[...] / heads)


def _masked_scores(
    q: Any, k: Any, scale: float, soft_cap: Cap, blocks: AttentionBlocks, start: Any, i: Any, block: Any
) -> Any:
    """Return the scores of block `i` of queries over a block of slots, invisible ones at `MASKED`."""
    scores = tile_scores(q, k, scale, soft_cap)
    slots = block * blocks.slot_block + jax.lax.broadcasted_iota(jnp.int32, (1, blocks.slot_block), 1)
    return mask_absent(scores, blocks.visible(slots, start, i))


def _empty_state(rows: int, group: int) -> Any:
    """Return the packed state of the heads of a KV head before any score: m, l and a of each."""
    zero = jnp.zeros((rows, 1), jnp.float32)
    return packed([(jnp.full_like(zero, MASKED), zero, zero)] * group)


def _weights(scores: Any, m: Any, l: Any) -> Any:  # noqa: E741 (its name in the definition)
    """Return the softmax weights of scores, given their largest and Σ e^u; 0 for an empty row."""
    _, e, _ = tile_sums(scores, m)
    return e / jnp.where(l == 0, 1.0, l)


def _entropy(l: Any, a: Any) -> Any:  # noqa: E741 (its name in the definition)
    """Return the entropy from Σ e^u and Σ e^u u; 0 for an empty row."""
    l = jnp.where(l == 0, 1.0, l)  # noqa: E741
    return jnp.log(l) - a / l


def _entropy_of(weights: Any) -> Any:
    """Return −Σ w ln w over a tile's columns."""
    return -total(weights * jnp.log(jnp.where(weights > 0, weights, 1.0)))


def _not_negative(x: Any) -> Any:
    """Return x, or 0 where it is negative; NaN stays NaN."""
    return jnp.where(x < 0, 0.0, x)
