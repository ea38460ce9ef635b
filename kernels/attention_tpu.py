"""Attention for TPUs (Mosaic): blocks of query rows over the blocks of slots that they see, with an online softmax.

A row's sums exclude position 0, the sink, and are about the largest score of the other keys. This keeps the moments of
the weights without the sink exact even where the sink takes nearly all weight. The sink's score and value are kept
beside the sums, and its share of the output is added at the end. The scores of a query's own and previous position are
taken from the blocks that hold them; a gather of their keys would make XLA copy the whole cache.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from .attention import AttentionSums, Chunk, Keys, PositionSums, Queries, Starts, Values, Window
from .moments import MASKED, Moments
from .precision import mosaic_precision
from .soft_cap import Cap, soft_capped
from .tiles import RunningSums, shift_sums
from .tpu_tiles import LANES, add_sums, interpreter, largest_of, mask_absent, tile_sums, total

STEP_BYTES = 1 << 20  # keys and values that one step of the grid reads: enough to hide the cost of a step
STEP_ROWS = 512
STEP_SCORES = 1 << 18  # 1 MiB in float32; the moments need several times as much
SINK, OWN, PREVIOUS, PROMPT = range(4)  # columns of a row's scores of single positions, and its sum over the prompt


@dataclasses.dataclass(frozen=True)
class AttentionBlocks:
    """Blocks of the query rows of a KV head, and blocks of cache slots; row r is a head of query r // group.

    Attributes:
      rows: number of rows.
      keys: number of slots.
      group: rows of one query.
      row_block: rows of a block.
      slot_block: slots of a block.
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
        """Number of blocks of rows."""
        return pl.cdiv(self.rows, self.row_block)

    @property
    def slot_blocks(self) -> int:
        """Largest number of blocks of slots that a block of rows sees."""
        all_blocks = pl.cdiv(self.keys, self.slot_block)
        if self.window is None:
            return all_blocks
        slots = self.window + pl.cdiv(self.row_block - 1, self.group)
        return min(all_blocks, pl.cdiv(slots - 1, self.slot_block) + 1)

    def visible_range(
        self, start: Int[Array, ""], i: Int[Array, ""] | int
    ) -> tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""]]:
        """Return (first block of slots, last block, last slot) that block `i` of rows sees; last slot < 0 if none."""
        first_row = i * self.row_block
        last_row = jnp.minimum(first_row + self.row_block, self.rows) - 1
        last = jnp.minimum(start + jax.lax.div(last_row, self.group), self.keys - 1)
        begin = 0 if self.window is None else start + jax.lax.div(first_row, self.group) - self.window + 1
        first_block, last_block = (jax.lax.div(jnp.maximum(slot, 0), self.slot_block) for slot in (begin, last))
        return first_block, last_block, last

    def slot_index(self, start: Int[Array, ""], i: Int[Array, ""] | int, j: Int[Array, ""]) -> Int[Array, ""]:
        """Return the j-th block of slots that block `i` of rows sees; after the last, the last again (not re-read)."""
        first, last, _ = self.visible_range(start, i)
        return jnp.minimum(first + j, last)

    def at_or_after(
        self, positions: Int[Array, "1 S"] | int, start: Int[Array, ""], i: Int[Array, ""] | int
    ) -> Bool[Array, "R S"]:
        """Return the mask of the rows of block `i` whose query is at each of the positions or after it."""
        row = i * self.row_block + jax.lax.broadcasted_iota(jnp.int32, (self.row_block, 1), 0)
        return row >= self.group * (positions - start)

    def visible(
        self, slots: Int[Array, "1 S"] | int, start: Int[Array, ""], i: Int[Array, ""] | int
    ) -> Bool[Array, "R S"]:
        """Return the mask of the `slots` that each row of block `i` sees."""
        reached = self.at_or_after(slots, start, i)
        return reached if self.window is None else reached & ~self.at_or_after(slots + self.window, start, i)


def refuses(*arrays: Array, window: Window = None, **_: Any) -> str | None:
    """Return why the kernels cannot serve queries, keys and values of these dtypes, or None."""
    if isinstance(window, Chunk):
        return "no kernel for chunked attention"
    dtypes = {str(x.dtype) for x in arrays[:3] if jnp.issubdtype(x.dtype, jnp.floating)}
    served = len(dtypes) == 1 and dtypes <= {"float32", "bfloat16"}
    return None if served else f"no kernel for {', '.join(sorted(dtypes))}"


def attend(
    q: Queries,
    k: Keys,
    v: Values,
    start: Starts,
    *,
    scale: float,
    window: int | None,
    soft_cap: Cap,
    moments: bool,
    logsumexp: bool,
    prompt_length: Starts | None,
    name: str,
    interpret: bool = False,
) -> AttentionSums:
    """Compute `prefill_attention`: queries at start … start + T − 1, each over the slots up to its own."""
    b, t, n, h = q.shape
    kv_heads, keys = k.shape[1], k.shape[3]
    group = n // kv_heads
    rows = q.reshape(b, t, kv_heads, group, h).swapaxes(1, 2).reshape(b, kv_heads, t * group, h)
    heads, row_block, slot_block = step_size(rows.shape, keys, k.dtype)
    blocks = AttentionBlocks(t * group, keys, group, row_block, slot_block, window)
    values_last = h < LANES  # XLA also lays out narrow values with their slots last, so this copies nothing
    row_spec = pl.BlockSpec((1, heads, row_block, h), lambda b, h, i, j, *_: (b, h, i, 0))
    slots_last = pl.BlockSpec(
        (1, heads, h, slot_block), lambda b, h, i, j, start, *_: (b, h, 0, blocks.slot_index(start[b], i, j))
    )
    slots_first = pl.BlockSpec(
        (1, heads, slot_block, h), lambda b, h, i, j, start, *_: (b, h, blocks.slot_index(start[b], i, j), 0)
    )
    scalars = (start,) if prompt_length is None else (start, prompt_length)
    columns = 6 + len(scalars) if moments else 2 if logsumexp else 0  # numbers of each row beside its output
    sums_spec = pl.BlockSpec((1, heads, columns, row_block), lambda b, h, i, j, *_: (b, h, 0, i))
    output = pltpu.VMEM((heads, row_block, h), jnp.float32)
    column = pltpu.VMEM((heads, row_block, 1), jnp.float32)
    single = pltpu.VMEM((heads, row_block, 4), jnp.float32)  # in the bytes of one column
    sink_value = pltpu.VMEM((heads, 1, h), jnp.float32)
    out, *sums = pl.pallas_call(
        functools.partial(
            _kernel,
            blocks=blocks,
            scale=scale,
            soft_cap=soft_cap,
            moments=moments,
            prompt=prompt_length is not None,
            sums=columns > 0,
            values_last=values_last,
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(b, kv_heads // heads, blocks.row_blocks, blocks.slot_blocks),
            in_specs=[row_spec, slots_last, slots_last if values_last else slots_first],
            out_specs=[row_spec, sums_spec][: 1 + (columns > 0)],
            scratch_shapes=[output, *[column] * (4 if moments else 2), *([single, sink_value] if moments else [])],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(rows.shape, q.dtype),
            jax.ShapeDtypeStruct((b, kv_heads, columns, t * group), jnp.float32),
        ][: 1 + (columns > 0)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=4 * q.size * keys,
            transcendentals=q.size // h * keys,
            bytes_accessed=2 * q.nbytes + blocks.row_blocks * (k.nbytes + v.nbytes),
        ),
        interpret=interpreter(interpret),
        name=name,
    )(*scalars, rows, k, v.swapaxes(2, 3) if values_last else v)

    def by_query(x: Array) -> Array:
        """Reshape [B, K, R, …] to [B, T, N, …]."""
        return x.reshape(b, kv_heads, t, group, *x.shape[3:]).swapaxes(1, 2).reshape(b, t, n, *x.shape[3:])

    if not columns:
        return AttentionSums(by_query(out))
    m, sum_e, *others = (by_query(sums[0][:, :, i]) for i in range(columns))
    sum_eu, sum_euu, *scores = others if moments else [jnp.zeros_like(m)] * 2
    counted = Moments(m, sum_e, sum_eu, sum_euu, jnp.zeros((*m.shape, 0), jnp.float32))
    if not moments:
        return AttentionSums(by_query(out), logsumexp=counted.logsumexp)
    sink, own, previous, *prompt_mass = scores
    return AttentionSums(by_query(out), counted, PositionSums(sink, own, previous, *(prompt_mass or [None])))


def step_size(rows: tuple[int, ...], keys: int, dtype: jnp.dtype) -> tuple[int, int, int]:
    """Return (KV heads, rows of each, slots) of one step of the grid, for query rows [B, K, R, H]."""
    _, kv_heads, count, h = rows
    row_block = min(count, STEP_ROWS)
    tile = 2 * LANES * max(h, LANES) * dtype.itemsize  # bytes of the smallest tile of keys and values
    fitting = min(STEP_BYTES // tile, STEP_ROWS // row_block)
    heads = max(n for n in range(1, kv_heads + 1) if kv_heads % n == 0 and n <= max(fitting, 1))
    tiles = min(STEP_BYTES // (heads * tile), STEP_SCORES // (heads * row_block * LANES), pl.cdiv(keys, LANES))
    return heads, row_block, max(tiles, 1) * LANES


def _kernel(
    *refs: Any,
    blocks: AttentionBlocks,
    scale: float,
    soft_cap: Cap,
    moments: bool,
    prompt: bool,
    sums: bool,
    values_last: bool,
) -> None:
    """Add one block of slots to the sums of one block of rows; with `sums`, return them beside the output.

    With `prompt`, the second of the references holds prompt lengths.
    """
    (start_ref, *prompt_ref), (q_ref, k_ref, v_ref, out_ref, *rest) = refs[: 1 + prompt], refs[1 + prompt :]
    sums_ref, *scratch = rest if sums else (None, *rest)
    output, m_ref, *sums_refs = scratch
    if moments:
        *sums_refs, single_ref, sink_value = sums_refs
    i, j = pl.program_id(2), pl.program_id(3)
    start = start_ref[pl.program_id(0)]
    prompt_length = prompt_ref[0][pl.program_id(0)] if prompt_ref else 0
    first_block, last_block, last_slot = blocks.visible_range(start, i)
    begin = (first_block + j) * blocks.slot_block

    @pl.when(j == 0)
    def _() -> None:
        for ref in scratch:
            ref[...] = jnp.full_like(ref, MASKED if ref is m_ref else 0.0)

    @pl.when((first_block + j <= last_block) & (last_slot >= 0))
    def _() -> None:
        scores = tile_scores(q_ref[0], k_ref[0], scale, soft_cap)
        slots = begin + jax.lax.broadcasted_iota(jnp.int32, (1, blocks.slot_block), 1)
        visible = blocks.visible(slots, start, i)
        v = v_ref[0]
        slot_of_value = begin + jax.lax.broadcasted_iota(jnp.int32, v.shape, 2 if values_last else 1)
        v = jnp.where(slot_of_value <= last_slot, v, jnp.zeros_like(v))  # later slots may hold NaN
        if moments:

            @pl.when(begin == 0)
            def _() -> None:
                single_ref[:, :, SINK : SINK + 1] = scores[:, :, :1]
                first = v.astype(jnp.float32)[:, :, :1] if values_last else v[:, :1].astype(jnp.float32)
                sink_value[...] = jnp.swapaxes(first, 1, 2) if values_last else first

            @pl.when(begin + blocks.slot_block >= start + jax.lax.div(i * blocks.row_block, blocks.group))
            def _() -> None:
                for distance, n in enumerate((OWN, PREVIOUS)):
                    is_near = blocks.at_or_after(slots + distance, start, i)
                    is_near &= ~blocks.at_or_after(slots + distance + 1, start, i)
                    single_ref[:, :, n : n + 1] += total(jnp.where(is_near, scores, 0.0))

            visible &= slots != 0
        scores = mask_absent(scores, visible)
        m = jnp.maximum(m_ref[...], largest_of(scores))
        d = m_ref[...] - m
        _, e, new = tile_sums(scores, m)
        m_ref[...] = m
        before = RunningSums(*(ref[...] for ref in sums_refs), *[0.0] * (3 - len(sums_refs)))
        for ref, x in zip(sums_refs, add_sums(shift_sums(before, d), new), strict=False):
            ref[...] = x
        output[...] = jnp.exp(d) * output[...] + weighted_values(e, v, values_last)
        if prompt:
            so_far = single_ref[:, :, PROMPT : PROMPT + 1]
            in_prompt = total(jnp.where(slots < prompt_length, e, 0.0))
            single_ref[:, :, PROMPT : PROMPT + 1] = jnp.exp(d) * so_far + in_prompt

    @pl.when(j == pl.num_programs(3) - 1)
    def _() -> None:
        out, divisor = output[...], sums_refs[0][...]
        single = []
        if moments:
            sees_sink, sees_own = blocks.visible(0, start, i), blocks.at_or_after(0, start, i)
            sees_previous = blocks.at_or_after(1, start, i) & (blocks.window != 1)
            seen = sees_sink, sees_own, sees_previous
            single = [jnp.where(sees, single_ref[:, :, n : n + 1], MASKED) for n, sees in enumerate(seen)]
            sink, m = single[SINK], m_ref[...]
            top = jnp.maximum(m, sink)
            share, sink_share = jnp.exp(m - top), jnp.where(sees_sink, jnp.exp(sink - top), 0.0)
            out, divisor = share * out + sink_share * sink_value[...], share * divisor + sink_share
            if prompt:
                in_prompt = share * single_ref[:, :, PROMPT : PROMPT + 1]
                in_prompt += jnp.where(prompt_length > 0, sink_share, 0.0)
                single.append(in_prompt / jnp.where(divisor == 0, 1.0, divisor))
        if sums_ref is not None:
            for n, column in enumerate((m_ref[...], *(ref[...] for ref in sums_refs), *single)):
                sums_ref[0, :, n : n + 1, :] = jnp.swapaxes(column, 1, 2)
        out_ref[0] = (out / jnp.where(divisor == 0, 1.0, divisor)).astype(out_ref.dtype)


def tile_scores(
    q: Float[Array, "K R H"], k: Float[Array, "K H S"], scale: float, soft_cap: Cap
) -> Float[Array, "K R S"]:
    """Return scaled, soft-capped scores in float32."""
    scores = jnp.einsum("krh,khs->krs", q, k, preferred_element_type=jnp.float32, precision=mosaic_precision(q, k))
    return soft_capped(scores * scale, soft_cap)


def weighted_values(weights: Float[Array, "K R S"], v: Array, values_last: bool) -> Float[Array, "K R H"]:
    """Return weighted sums in float32 of values [K, S, H], or [K, H, S] if `values_last`."""
    weights = weights.astype(v.dtype)
    equation = "krs,khs->krh" if values_last else "krs,ksh->krh"
    return jnp.einsum(equation, weights, v, preferred_element_type=jnp.float32, precision=mosaic_precision(weights, v))
