"""Attention for TPUs (Mosaic): blocks of query rows over the blocks of slots that they see, with an online softmax.

A row's sums leave out the first key it sees, its sink, and are about the largest score of the rest: so what is said of
the weights without the sink is exact even where the sink takes nearly all. Score and value of the sink are kept beside
the sums, and its share of the output is added at the end.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from .attention import AttentionSums
from .moments import MASKED, Moments
from .soft_cap import soft_capped
from .tiles import Sums, moved
from .tpu_tiles import LANES, add, interpreter, largest_of, of_tile, present, total

STEP_BYTES = 1 << 20  # keys and values that one step of the grid reads: enough to hide the cost of a step
STEP_ROWS = 512
STEP_SCORES = 1 << 18  # 1 MiB in float32, several times over while the moments are taken


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocks of the query rows of a KV head, and of cache slots; row r is a head of query r // group.

    Attributes:
      rows: how many there are.
      keys: how many slots.
      group: rows of one query.
      row_block, slot_block: size of a block.
      window: sliding window in keys, or None.
    """

    rows: int
    keys: int
    group: int
    row_block: int
    slot_block: int
    window: int | None

    @property
    def row_blocks(self) -> int:
        return pl.cdiv(self.rows, self.row_block)

    @property
    def slot_blocks(self) -> int:
        """How many blocks of slots a block of rows sees at most."""
        every = pl.cdiv(self.keys, self.slot_block)
        if self.window is None:
            return every
        slots = self.window + pl.cdiv(self.row_block - 1, self.group)
        return min(every, pl.cdiv(slots - 1, self.slot_block) + 1)

    def seen(
        self, start: Int[Array, ""], i: Int[Array, ""] | int
    ) -> tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""]]:
        """What block `i` of rows sees: (first block of slots, last block, last slot, which is < 0 if there is none)."""
        first_row = i * self.row_block
        last_row = jnp.minimum(first_row + self.row_block, self.rows) - 1
        last = jnp.minimum(start + jax.lax.div(last_row, self.group), self.keys - 1)
        begin = 0 if self.window is None else start + jax.lax.div(first_row, self.group) - self.window + 1
        first_block, last_block = (jax.lax.div(jnp.maximum(slot, 0), self.slot_block) for slot in (begin, last))
        return first_block, last_block, last

    def slot_index(self, start: Int[Array, ""], i: Int[Array, ""] | int, j: Int[Array, ""]) -> Int[Array, ""]:
        """The j-th block of slots that block `i` of rows sees; after the last, that again: it is not read anew."""
        first, last, _ = self.seen(start, i)
        return jnp.minimum(first + j, last)

    def visible(
        self, start: Int[Array, ""], i: Int[Array, ""] | int, slots: Int[Array, "1 S"]
    ) -> tuple[Bool[Array, "R S"], Bool[Array, "R S"]]:
        """(which of `slots` each row of block `i` sees, which of them is its first)."""
        row = i * self.row_block + jax.lax.broadcasted_iota(jnp.int32, (self.row_block, 1), 0)
        own = self.group * (slots - start)  # the first row whose query stands at the slot
        seen = own <= row
        if self.window is None:
            return seen, seen & (slots == 0)
        gone = own + self.group * self.window  # the first row that no longer sees the slot
        seen &= row < gone
        return seen, seen & ((slots == 0) | (row >= gone - self.group))


def refuses(*arrays, **_):
    """Why the kernels cannot serve queries, keys and values of these dtypes, or None."""
    dtypes = {str(x.dtype) for x in arrays[:3] if jnp.issubdtype(x.dtype, jnp.floating)}
    return (
        None if len(dtypes) == 1 and dtypes <= {"float32", "bfloat16"} else f"no kernel for {', '.join(sorted(dtypes))}"
    )


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K H S"],
    v: Float[Array, "B K S H"],
    start: Int[Array, " B"],
    *,
    scale: float,
    window: int | None,
    soft_cap: float | None,
    moments: bool,
    name: str,
    interpret: bool = False,
) -> AttentionSums:
    """Attention of queries at start … start + T − 1, each over the slots up to its own, as `prefill_attention`."""
    b, t, n, h = q.shape
    kv_heads, keys = k.shape[1], k.shape[3]
    group = n // kv_heads
    rows = q.reshape(b, t, kv_heads, group, h).swapaxes(1, 2).reshape(b, kv_heads, t * group, h)
    heads, row_block, slot_block = step_size(rows.shape, keys, k.dtype)
    blocks = Blocks(t * group, keys, group, row_block, slot_block, window)
    values_last = h < LANES  # XLA, too, lays out narrow values with their slots last: this copies nothing
    row_spec = pl.BlockSpec((1, heads, row_block, h), lambda b, h, i, j, start: (b, h, i, 0))
    slots_last = pl.BlockSpec(
        (1, heads, h, slot_block), lambda b, h, i, j, start: (b, h, 0, blocks.slot_index(start[b], i, j))
    )
    slots_first = pl.BlockSpec(
        (1, heads, slot_block, h), lambda b, h, i, j, start: (b, h, blocks.slot_index(start[b], i, j), 0)
    )
    sums_spec = pl.BlockSpec((1, heads, 5, row_block), lambda b, h, i, j, start: (b, h, 0, i))
    output = pltpu.VMEM((heads, row_block, h), jnp.float32)
    column = pltpu.VMEM((heads, row_block, 1), jnp.float32)
    out, *sums = pl.pallas_call(
        functools.partial(
            _kernel, blocks=blocks, scale=scale, soft_cap=soft_cap, moments=moments, values_last=values_last
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(b, kv_heads // heads, blocks.row_blocks, blocks.slot_blocks),
            in_specs=[row_spec, slots_last, slots_last if values_last else slots_first],
            out_specs=[row_spec, sums_spec][: 1 + moments],
            scratch_shapes=[output, column, column, *([column, column, output, column] if moments else [])],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(rows.shape, q.dtype),
            jax.ShapeDtypeStruct((b, kv_heads, 5, t * group), jnp.float32),
        ][: 1 + moments],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=4 * q.size * keys,
            transcendentals=q.size // h * keys,
            bytes_accessed=2 * q.nbytes + blocks.row_blocks * (k.nbytes + v.nbytes),
        ),
        interpret=interpreter(interpret),
        name=name,
    )(start, rows, k, v.swapaxes(2, 3) if values_last else v)

    def finished(x):
        """[B, K, R, …] → [B, T, N, …]."""
        return x.reshape(b, kv_heads, t, group, *x.shape[3:]).swapaxes(1, 2).reshape(b, t, n, *x.shape[3:])

    if not moments:
        return AttentionSums(finished(out), None, None)
    m, sum_e, sum_eu, sum_euu, sink = (finished(sums[0][:, :, i]) for i in range(5))
    rest = Moments(m, sum_e, sum_eu, sum_euu, jnp.zeros((*m.shape, 0), jnp.float32))
    return AttentionSums(finished(out), sink, rest)


def step_size(rows: tuple[int, ...], keys: int, dtype: jnp.dtype) -> tuple[int, int, int]:
    """How many KV heads, rows of each and slots one step of the grid takes, for query rows [B, K, R, H]."""
    _, kv_heads, count, h = rows
    row_block = min(count, STEP_ROWS)
    tile = 2 * LANES * max(h, LANES) * dtype.itemsize  # bytes of the least keys and values
    fitting = min(STEP_BYTES // tile, STEP_ROWS // row_block)
    heads = max(n for n in range(1, kv_heads + 1) if kv_heads % n == 0 and n <= max(fitting, 1))
    tiles = min(STEP_BYTES // (heads * tile), STEP_SCORES // (heads * row_block * LANES), pl.cdiv(keys, LANES))
    return heads, row_block, max(tiles, 1) * LANES


def _kernel(start_ref, q_ref, k_ref, v_ref, out_ref, *refs, blocks, scale, soft_cap, moments, values_last):
    """One block of slots for one block of rows."""
    if moments:
        sums_ref, *scratch = refs
        output, m_ref, *sums_refs, sink_output, sink_score = scratch
    else:
        output, m_ref, *sums_refs = scratch = refs
    i, j = pl.program_id(2), pl.program_id(3)
    start = start_ref[pl.program_id(0)]
    first_block, last_block, last_slot = blocks.seen(start, i)
    begin = (first_block + j) * blocks.slot_block

    @pl.when(j == 0)
    def _():
        for ref in scratch:
            ref[...] = jnp.full_like(ref, MASKED if ref is m_ref else 0.0)

    @pl.when((first_block + j <= last_block) & (last_slot >= 0))
    def _():
        scores = scores_of(q_ref[0], k_ref[0], scale, soft_cap)
        slots = begin + jax.lax.broadcasted_iota(jnp.int32, (1, blocks.slot_block), 1)
        seen, is_sink = blocks.visible(start, i, slots)
        v = v_ref[0]
        slot_of_value = begin + jax.lax.broadcasted_iota(jnp.int32, v.shape, 2 if values_last else 1)
        v = jnp.where(slot_of_value <= last_slot, v, jnp.zeros_like(v))  # what lies beyond may be NaN
        if moments:

            @pl.when(begin <= jnp.maximum(last_slot - (blocks.window or blocks.keys) + 1, 0))
            def _():
                sink_score[...] += total(jnp.where(is_sink, scores, 0.0))
                is_sink_of_head = jnp.broadcast_to(is_sink, scores.shape)
                sink_output[...] += weighted(is_sink_of_head.astype(jnp.float32), v, values_last)

            seen &= ~is_sink
        scores = present(scores, seen)
        m = jnp.maximum(m_ref[...], largest_of(scores))
        d = m_ref[...] - m
        _, e, here = of_tile(scores, m)
        m_ref[...] = m
        before = Sums(*(ref[...] for ref in sums_refs), *[0.0] * (3 - len(sums_refs)))
        for ref, x in zip(sums_refs, add(moved(before, d), here), strict=False):
            ref[...] = x
        output[...] = jnp.exp(d) * output[...] + weighted(e, v, values_last)

    @pl.when(j == pl.num_programs(3) - 1)
    def _():
        out, whole = output[...], sums_refs[0][...]
        if moments:
            row = i * blocks.row_block + jax.lax.broadcasted_iota(jnp.int32, (blocks.row_block, 1), 0)
            sink = jnp.where(row >= -start * blocks.group, sink_score[...], MASKED)
            m = m_ref[...]
            top = jnp.maximum(m, sink)
            share, sink_share = jnp.exp(m - top), jnp.exp(sink - top)
            out, whole = share * out + sink_share * sink_output[...], share * whole + sink_share
            for n, column in enumerate((m, *(ref[...] for ref in sums_refs), sink)):
                sums_ref[0, :, n : n + 1, :] = jnp.swapaxes(column, 1, 2)
        out_ref[0] = (out / jnp.where(whole == 0, 1.0, whole)).astype(out_ref.dtype)


def scores_of(q, k, scale, soft_cap):
    """Scores [K, R, S] in float32 of q[K, R, H] and k[K, H, S]."""
    scores = jnp.einsum("krh,khs->krs", q, k, preferred_element_type=jnp.float32, precision=precision(q, k))
    return soft_capped(scores * scale, soft_cap)


def weighted(weights, v, values_last):
    """Sums [K, R, H] in float32 of values [K, S, H], or [K, H, S], with weights [K, R, S]."""
    weights = weights.astype(v.dtype)
    equation = "krs,khs->krh" if values_last else "krs,ksh->krh"
    return jnp.einsum(equation, weights, v, preferred_element_type=jnp.float32, precision=precision(weights, v))


def precision(*operands):
    """Of a product: that of float32 where an operand is."""
    return jax.lax.Precision.HIGHEST if any(x.dtype == jnp.float32 for x in operands) else None
