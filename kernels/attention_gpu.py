"""Sweep that the attention kernels for Hopper GPUs (Mosaic GPU) share: 64 rows at a time over the slots they see.

A thread block holds 64 rows (queries × the heads of a group) of one key/value head. It reads the blocks of slots that
any of its rows counts. Where too few rows fill the machine, several thread blocks share the slots of the same rows.
Products are `wgmma` of bfloat16 with float32 sums; a float32 number is the sum of three bfloat16 pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Bool, Float, Int

from .attention import Keys, PerQuery, Queries, Starts, Values, group_heads
from .gpu_tiles import bfloat16_pieces, interpreter, sum_terms, too_old
from .moments import MASKED
from .soft_cap import Cap, soft_capped
from .tiles import RunningSums, shift_sums

ROWS = 64  # rows of a wgmma
SLOTS = 64  # slots of a block of keys
LANES = 16  # head widths are padded to a multiple of this
SHARED_MEMORY = 220 * 1024  # bytes of a thread block on Hopper, less the compiler's share
PROCESSORS = 132

# Products of pieces (the larger first) that add up to one product of their sums, the smallest first.
PRODUCTS = {1: ((0, 0),), 3: ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0))}


def refuses(q: Array, k: Array, *_: Any, arrays: int = 2, **__: Any) -> str | None:
    """Return why a sweep over `arrays` arrays (keys and values, or keys only) cannot serve a call, or None."""
    if reason := too_old():
        return reason
    if q.dtype != k.dtype or q.dtype not in (jnp.bfloat16, jnp.float32):
        return f"multiplies bfloat16 or float32, not {q.dtype} with {k.dtype}"
    width = pl.cdiv(k.shape[2], LANES) * LANES
    if pipeline_stages(piece_count(q.dtype), width + SLOTS, arrays * width) <= 0:
        return f"blocks of {q.dtype} heads of {k.shape[2]} do not fit shared memory"
    return None


def piece_count(dtype: Any) -> int:
    """Return the number of bfloat16 pieces that make up a number of this dtype."""
    return 3 if dtype == jnp.float32 else 1


def pipeline_stages(pieces: int, resident: int, block: int) -> int:
    """Return the number of blocks, at most two, that fit shared memory beside the resident arrays.

    Args:
      pieces: bfloat16 pieces of a number.
      resident: total width of the arrays that stay, of 64 rows each.
      block: total width of one block's arrays, of 64 rows each.
    """
    return min((SHARED_MEMORY // (2 * pieces * ROWS) - resident) // block, 2)


class SlotPlan(NamedTuple):
    """Slots that a thread block reads, and slots that each row counts.

    Attributes:
      first: first slot that a row counts.
      last: last slot that a row counts; −1 for a row that counts none.
      blocks: (first block of slots, number of blocks) of each share.
      ends: first slot of each batch row that no query counts; slots from here on hold garbage.
      prompts: number of slots of each batch row's prompt; 0 if it is not asked for.
      rows: number of rows without padding.
    """

    first: Int[Array, "B R"]
    last: Int[Array, "B R"]
    blocks: Int[Array, "B I Z 2"]
    ends: Int[Array, " B"]
    prompts: Int[Array, " B"]
    rows: int

    @classmethod
    def of(
        cls,
        first: PerQuery,
        last: PerQuery,
        group: int,
        slots: int,
        others: int,
        smallest: int,
        prompt_length: Starts | None = None,
    ) -> SlotPlan:
        """Return the plan of rows (query, head of the group) that count the slots first … last of their query.

        Args:
          first, last: first and last slot of each query; last < first counts none.
          others: number of thread blocks that read the same rows.
          smallest: smallest number of slots in a share.
          prompt_length: number of slots of each batch row's prompt, or None.
        """
        b, t = first.shape
        empty = first > last

        def to_rows(x: PerQuery, no_slot: int) -> Int[Array, "B R"]:
            x = jnp.repeat(jnp.where(empty, no_slot, x), group, axis=1)
            return jnp.pad(x, ((0, 0), (0, -t * group % ROWS)), constant_values=no_slot)

        first, last = to_rows(first, slots), to_rows(jnp.minimum(last, slots - 1), -1)
        row_blocks = first.shape[1] // ROWS
        shares = max(1, min(2 * PROCESSORS // (b * others * row_blocks), slots // smallest))
        low = jnp.min(first.reshape(b, row_blocks, ROWS), axis=-1) // SLOTS
        high = jnp.max(last.reshape(b, row_blocks, ROWS), axis=-1) // SLOTS + 1
        share = (jnp.maximum(high - low, 0) + shares - 1) // shares
        start = low[..., None] + share[..., None] * jnp.arange(shares)
        blocks = jnp.stack([start, jnp.clip(high[..., None] - start, 0, share[..., None])], axis=-1)
        ends = jnp.max(last, axis=1) + 1
        arrays = (first, last, blocks, ends, jnp.zeros_like(ends) if prompt_length is None else prompt_length)
        return cls(*(x.astype(jnp.int32) for x in arrays), rows=t * group)


def rows_of(q: Queries, kv_heads: int) -> Float[Array, "B K R H"]:
    """Return the queries as rows (query, head of the group) of each key/value head, padded to whole tiles."""
    b, h = q.shape[0], q.shape[3]
    return padded(jnp.swapaxes(group_heads(q, kv_heads), 2, 3).reshape(b, kv_heads, -1, h), ROWS, LANES)


def by_query(x: Float[Array, "B K R *x"], queries: int, group: int) -> Float[Array, "B T N *x"]:
    """Return per-row results arranged by query and head."""
    b, kv_heads = x.shape[:2]
    x = x[:, :, : queries * group].reshape(b, kv_heads, queries, group, *x.shape[3:])
    return jnp.moveaxis(x, 1, 2).reshape(b, queries, kv_heads * group, *x.shape[4:])


def operands(x: Float[Array, "B K M W"]) -> Float[Array, "P M W"]:
    """Return the pieces of x, [pieces · B · K, M, W]: the copy engine takes one axis beside two of tiles."""
    return bfloat16_pieces(x).reshape(-1, *x.shape[2:])


def padded(x: Float[Array, "B K M W"], m: int, w: int) -> Array:
    """Pad the last two axes of x to multiples of m and w: the copy engine copies whole tiles only."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % m), (0, -x.shape[3] % w)))


def tiled(head_dim: int) -> tuple[plgpu.TilingTransform, plgpu.SwizzleTransform]:
    """Return the layout of `wgmma` operands in shared memory."""
    swizzle = plgpu.find_swizzle(16 * head_dim)
    return plgpu.TilingTransform((8, swizzle // 2)), plgpu.SwizzleTransform(swizzle)  # pyright: ignore[reportAbstractUsage]


def product(a: Sequence[Any], b: Sequence[Any]) -> Float[Array, "M N"]:
    """Return a @ b in float32, given the pieces of each in shared memory."""

    def multiply(acc: Any) -> Float[Array, "M N"]:
        for i, j in PRODUCTS[len(a)]:
            plgpu.wgmma(acc, a[i], b[j])
        return acc[...]

    return pl.run_scoped(multiply, plgpu.ACC((a[0].shape[0], b[0].shape[1]), jnp.float32))


def along_rows(x: Array, width: int) -> Array:
    """Broadcast x [M] to [M, width]."""
    return jax.lax.broadcast_in_dim(x, (x.shape[0], width), [0])


def iota(shape: tuple[int, int], axis: int) -> Int[Array, "M N"]:
    """Return the index along an axis, in the layout of a `wgmma` result."""
    return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=plgpu.Layout.WGMMA)


def filled(shape: tuple[int, ...], value: float) -> Array:
    """Return an array of one value, [rows, columns] or [rows], in registers."""
    layout = plgpu.Layout.WGMMA if len(shape) == 2 else plgpu.Layout.WGMMA.reduce(1)
    return plgpu.layout_cast(jnp.full(shape, value, jnp.float32), layout)


def load_rows(ref: Any) -> Array:
    """Load one number per row from device memory."""
    return plgpu.load(ref, layout=plgpu.Layout.WGMMA.reduce(1), optimized=False)  # pyright: ignore[reportCallIssue]


def counted(slot: Int[Array, ""], first: Int[Array, " M"], last: Int[Array, " M"]) -> Bool[Array, "M N"]:
    """Return the mask of the slots that each row counts, in the block that begins at `slot`."""
    slots = slot + iota((ROWS, SLOTS), 1)
    return (slots >= along_rows(first, SLOTS)) & (slots <= along_rows(last, SLOTS))


def add_scores(
    m: Float[Array, " M"], sums: Sequence[Array], scores: Float[Array, "M N"]
) -> tuple[Float[Array, " M"], list[Array], Float[Array, "M N"]]:
    """Return the maximum and the sums (l, or l, a and b) with these scores added, and e^u of the scores."""
    new_m = jnp.maximum(m, jnp.max(scores, axis=1))
    terms = sum_terms(scores, along_rows(new_m, scores.shape[1]))
    l, a, b = (*sums, 0.0, 0.0)[:3]  # noqa: E741 (its name in the definition)
    before = shift_sums(RunningSums(l, a, b), m - new_m)
    return new_m, [x + jnp.sum(y, axis=1) for x, y, _ in zip(before[:3], terms[:3], sums, strict=False)], terms.l


class ScoreBlock(NamedTuple):
    """Scores of a block of slots, which `sweep` gives to its step.

    Attributes:
      scores: attention scores; `MASKED` where a row does not count the slot.
      slot: first slot of the block.
      end: first slot that no query counts; slots from here on hold garbage.
      prompt: first slot after the prompt.
      values: pieces of the values, in shared memory.
      place: (batch row, key/value head).
    """

    scores: Float[Array, "64 64"]
    slot: Int[Array, ""]
    end: Int[Array, ""]
    prompt: Int[Array, ""]
    values: Sequence[Any]
    place: tuple[Int[Array, ""], Int[Array, ""]]


def sweep(
    step: Callable[..., tuple[Array, ...]],
    initial: Sequence[tuple[tuple[int, ...], float]],
    rows: Float[Array, "B K R H"],
    k: Keys,
    v: Values | None,
    plan: SlotPlan,
    *,
    scale: float,
    soft_cap: Cap,
    name: str,
    interpret: bool,
    scratch: Sequence[Any] = (),
    outputs: Sequence[jax.ShapeDtypeStruct] = (),
) -> Sequence[Array]:
    """Fold `step` over the blocks of slots of every block of rows and share.

    Args:
      step: function of (ScoreBlock, carry, *scratch, *outputs); returns the next carry.
      initial: (shape, value) of every array of the carry; shapes are (64,) or (64, N).
      rows: rows, padded to whole tiles.
      scratch: shared memory for `step`.
      outputs: arrays that `step` writes.

    Returns:
      The arrays of the carry, [Z, B, K, R, …], then the outputs. A single block of rows returns only its first
      `plan.rows` rows, rounded up to 8.
    """
    b, kv_heads, count, h = rows.shape
    pieces, shares, row_blocks = piece_count(rows.dtype), plan.blocks.shape[2], count // ROWS
    kept = kept_rows(plan)
    keys_values = [padded(k, LANES, SLOTS), *([] if v is None else [padded(v, SLOTS, LANES)])]

    def body(q_gmem: Any, *refs: Any) -> None:
        keys_values_gmem, refs = refs[: len(keys_values)], refs[len(keys_values) :]
        (first_gmem, last_gmem, blocks_gmem, ends_gmem, prompts_gmem), refs = refs[:5], refs[5:]
        carry_gmem, outputs_gmem = refs[: len(initial)], refs[len(initial) :]
        share, head, row = (jax.lax.axis_index(name) for name in ("share", "head", "row"))
        batch, block = row // row_blocks, row % row_blocks
        block_rows = pl.ds(block * ROWS, ROWS)
        start, steps = (blocks_gmem[batch, block, share, i] for i in range(2))
        first, last = load_rows(first_gmem.at[batch, block_rows]), load_rows(last_gmem.at[batch, block_rows])
        end, prompt = ends_gmem[batch], prompts_gmem[batch]
        piece_index = [(piece * b + batch) * kv_heads + head for piece in range(pieces)]
        specs = [
            plgpu.BlockSpec((h, SLOTS), lambda i: (0, start + i), transforms=tiled(h)),
            plgpu.BlockSpec((SLOTS, h), lambda i: (start + i, 0), transforms=tiled(h)),
        ][: len(keys_values)]

        def run(q_smem: Any, barrier: Any, *scratch: Any) -> Any:
            for piece in range(pieces):
                plgpu.copy_gmem_to_smem(q_gmem.at[piece_index[piece], block_rows], q_smem.at[piece], barrier)
            plgpu.barrier_wait(barrier)

            def visit(indices: Any, *refs: Any) -> tuple[Array, ...]:
                *tiles, carry = refs
                keys, values = tiles[:pieces], tiles[pieces:]
                slot = (start + indices[0]) * SLOTS
                scores = soft_capped(product([q_smem.at[piece] for piece in range(pieces)], keys) * scale, soft_cap)
                scores = jnp.where(counted(slot, first, last), scores, MASKED)
                return step(
                    ScoreBlock(scores, slot, end, prompt, values, (batch, head)), carry, *scratch, *outputs_gmem
                )

            return plgpu.emit_pipeline(
                visit,
                grid=(steps,),
                in_specs=[spec for spec in specs for _ in range(pieces)],
                max_concurrent_steps=pipeline_stages(pieces, h + SLOTS, h * len(keys_values)),
                init_carry=tuple(filled(shape, value) for shape, value in initial),
            )(*(ref.at[i] for ref in keys_values_gmem for i in piece_index))

        results = pl.run_scoped(
            run,
            plgpu.SMEM((pieces, ROWS, h), jnp.bfloat16, transforms=tiled(h)),
            plgpu.Barrier(num_arrivals=pieces),
            *scratch,
        )

        def store(*buffers: Any) -> None:
            for buffer, x in zip(buffers, results, strict=True):
                buffer[...] = x
            plgpu.commit_smem()
            for buffer, output in zip(buffers, carry_gmem, strict=True):
                target = output.at[share, batch, head, pl.ds(block * ROWS, kept)]
                plgpu.copy_smem_to_gmem(buffer.at[pl.ds(0, kept)], target)
            plgpu.wait_smem_to_gmem(0)

        pl.run_scoped(store, *(plgpu.SMEM(shape, jnp.float32) for shape, _ in initial))

    shape = (shares, b, kv_heads, kept * row_blocks)
    products = len(keys_values) * len(PRODUCTS[pieces])
    return plgpu.kernel(
        body,
        out_type=[*(jax.ShapeDtypeStruct((*shape, *x[1:]), jnp.float32) for x, _ in initial), *outputs],
        grid=(shares, kv_heads, b * row_blocks),
        grid_names=("share", "head", "row"),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * rows.size * k.shape[3],
            transcendentals=b * kv_heads * count * k.shape[3],
            bytes_accessed=2 * pieces * (rows.size + len(keys_values) * k.size),
        ),
        compiler_params=arithmetic(soft_cap),
        interpret=interpreter(interpret),
        kernel_name=name,
    )(operands(rows), *(operands(x) for x in keys_values), *plan[:5])


def arithmetic(soft_cap: Cap) -> plgpu.CompilerParams:
    """Allow the processor's approximate exponential (relative error 2e-7), but not its approximate tanh (5e-4)."""
    return plgpu.CompilerParams(approx_math=soft_cap is None)


def kept_rows(plan: SlotPlan) -> int:
    """Return the number of a block's rows that the kernel returns."""
    return min(ROWS, pl.cdiv(plan.rows, 8) * 8)
