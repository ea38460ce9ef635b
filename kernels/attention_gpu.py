"""What the attention kernels for Hopper GPUs (Mosaic GPU) share: 64 rows at a time over the slots that they see.

A block of threads holds 64 rows (queries × the heads of a group) of one key/value head, and goes over the blocks of
slots that any of them counts, or over its share of those where there are too few rows to fill the machine. Products are
`wgmma` of bfloat16 with float32 sums; a float32 number is the sum of three bfloat16 ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Bool, Float, Int

from .attention import grouped
from .gpu_tiles import entries, interpreter, too_old
from .moments import MASKED
from .soft_cap import soft_capped
from .tiles import Sums, moved

ROWS = 64  # of a wgmma
SLOTS = 64  # of a block of keys
LANES = 16  # the width of heads is padded to a multiple of it
SHARED_MEMORY = 220 * 1024  # bytes of a block of threads on Hopper, less what the compiler takes
PROCESSORS = 132

# The products of parts (the larger first) that make up one of their sums, the smallest first.
PRODUCTS = {1: ((0, 0),), 3: ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0))}


def refuses(q: Array, k: Array, *_: Any, arrays: int = 2, **__: Any) -> str | None:
    """Why a sweep over `arrays` arrays, keys and values or keys alone, cannot serve a call, or None."""
    if reason := too_old():
        return reason
    if q.dtype != k.dtype or q.dtype not in (jnp.bfloat16, jnp.float32):
        return f"multiplies bfloat16 or float32, not {q.dtype} with {k.dtype}"
    width = pl.cdiv(k.shape[2], LANES) * LANES
    if stages(parts_of(q.dtype), width + SLOTS, arrays * width) <= 0:
        return f"blocks of {q.dtype} heads of {k.shape[2]} do not fit shared memory"
    return None


def parts_of(dtype: Any) -> int:
    """Of how many bfloat16 numbers a number of this type is the sum."""
    return 3 if dtype == jnp.float32 else 1


def stages(parts: int, held: int, block: int) -> int:
    """How many blocks `block` wide, at most two, fit shared memory beside what is `held` wide, all of 64 rows."""
    return min((SHARED_MEMORY // (2 * parts * ROWS) - held) // block, 2)


class Plan(NamedTuple):
    """Which slots a block of threads reads, and which of them each row counts.

    Attributes:
      first: the first slot that a row counts.
      last: the last one; −1 for a row that counts none.
      blocks: first block of slots of each share, and how many.
      ends: slots from here on hold nothing of the row.
      rows: how many rows there are, less padding.
    """

    first: Int[Array, "B R"]
    last: Int[Array, "B R"]
    blocks: Int[Array, "B I Z 2"]
    ends: Int[Array, " B"]
    rows: int

    @classmethod
    def of(
        cls, first: Int[Array, "B T"], last: Int[Array, "B T"], group: int, slots: int, others: int, smallest: int
    ) -> Plan:
        """The plan of rows (query, head of the group) that count the slots first … last of their query.

        Args:
          first, last: of each query; last < first counts none.
          group: rows of a query.
          slots: S.
          others: how many blocks of threads go over the same rows.
          smallest: number of slots that no share goes below.
        """
        b, t = first.shape
        empty = first > last

        def rows(x, none):
            x = jnp.repeat(jnp.where(empty, none, x), group, axis=1)
            return jnp.pad(x, ((0, 0), (0, -t * group % ROWS)), constant_values=none)

        first, last = rows(first, slots), rows(jnp.minimum(last, slots - 1), -1)
        row_blocks = first.shape[1] // ROWS
        shares = max(1, min(2 * PROCESSORS // (b * others * row_blocks), slots // smallest))
        low = jnp.min(first.reshape(b, row_blocks, ROWS), axis=-1) // SLOTS
        high = jnp.max(last.reshape(b, row_blocks, ROWS), axis=-1) // SLOTS + 1
        each = (jnp.maximum(high - low, 0) + shares - 1) // shares
        start = low[..., None] + each[..., None] * jnp.arange(shares)
        blocks = jnp.stack([start, jnp.clip(high[..., None] - start, 0, each[..., None])], axis=-1)
        arrays = (first, last, blocks, jnp.max(last, axis=1) + 1)
        return cls(*(x.astype(jnp.int32) for x in arrays), rows=t * group)


def rows_of(q: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K R H"]:
    """Queries as rows (query, head of the group) of each key/value head, padded to whole tiles."""
    b, h = q.shape[0], q.shape[3]
    return padded(jnp.swapaxes(grouped(q, kv_heads), 2, 3).reshape(b, kv_heads, -1, h), ROWS, LANES)


def queries_of(x: Float[Array, "B K R *x"], queries: int, group: int) -> Float[Array, "B T N *x"]:
    """What was found for each row, for each query and head."""
    b, kv_heads = x.shape[:2]
    x = x[:, :, : queries * group].reshape(b, kv_heads, queries, group, *x.shape[3:])
    return jnp.moveaxis(x, 1, 2).reshape(b, queries, kv_heads * group, *x.shape[4:])


def operands(x: Float[Array, "B K M W"]) -> Array:
    """The parts of x, the largest first, [parts · B · K, M, W]: the copy engine takes one axis beside two of tiles."""
    found = []
    for _ in range(parts_of(x.dtype)):
        found.append(x.astype(jnp.bfloat16))
        x = x - found[-1].astype(x.dtype)
    return jnp.concatenate(found).reshape(-1, *x.shape[2:])


def padded(x: Float[Array, "B K M W"], m: int, w: int) -> Array:
    """x with its last two axes padded to multiples of m and w: the copy engine cuts no tile."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % m), (0, -x.shape[3] % w)))


def tiled(head_dim: int) -> tuple[plgpu.TilingTransform, plgpu.SwizzleTransform]:
    """How the operands of `wgmma` lie in shared memory."""
    swizzle = plgpu.find_swizzle(16 * head_dim)
    return plgpu.TilingTransform((8, swizzle // 2)), plgpu.SwizzleTransform(swizzle)  # pyright: ignore[reportAbstractUsage]


def product(a: Sequence[Any], b: Sequence[Any]) -> Float[Array, "M N"]:
    """a @ b in float32, of the parts of each in shared memory."""

    def multiply(acc):
        for i, j in PRODUCTS[len(a)]:
            plgpu.wgmma(acc, a[i], b[j])
        return acc[...]

    return pl.run_scoped(multiply, plgpu.ACC((a[0].shape[0], b[0].shape[1]), jnp.float32))


def along_rows(x: Array, width: int) -> Array:
    """x [M] as [M, width]."""
    return jax.lax.broadcast_in_dim(x, (x.shape[0], width), [0])


def iota(shape: tuple[int, int], axis: int) -> Int[Array, "M N"]:
    return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=plgpu.Layout.WGMMA)


def filled(shape: tuple[int, ...], value: float) -> Array:
    """Rows of numbers, or one number for each row, all the same."""
    layout = plgpu.Layout.WGMMA if len(shape) == 2 else plgpu.Layout.WGMMA.reduce(1)
    return plgpu.layout_cast(jnp.full(shape, value, jnp.float32), layout)


def load_rows(ref: Any) -> Array:
    """A number for each row from device memory."""
    return plgpu.load(ref, layout=plgpu.Layout.WGMMA.reduce(1), optimized=False)  # pyright: ignore[reportCallIssue]


def counted(slot: Int[Array, ""], first: Int[Array, " M"], last: Int[Array, " M"]) -> Bool[Array, "M N"]:
    """Which slots of the block from `slot` on each row counts."""
    slots = slot + iota((ROWS, SLOTS), 1)
    return (slots >= along_rows(first, SLOTS)) & (slots <= along_rows(last, SLOTS))


def joined(
    m: Float[Array, " M"], sums: Sequence[Array], scores: Float[Array, "M N"]
) -> tuple[Float[Array, " M"], list[Array], Float[Array, "M N"]]:
    """The new maximum, the sums (l, or l, a and b) about it with these scores in them, and e^u of the scores."""
    new = jnp.maximum(m, jnp.max(scores, axis=1))
    here = entries(scores, along_rows(new, scores.shape[1]))
    l, a, b = (*sums, 0.0, 0.0)[:3]  # noqa: E741 (its name in the definition)
    before = moved(Sums(l, a, b), m - new)
    return new, [x + jnp.sum(y, axis=1) for x, y, _ in zip(before[:3], here[:3], sums, strict=False)], here.l


class Block(NamedTuple):
    """What a step of `sweep` is given: the scores of a block of slots, and where they are.

    Attributes:
      scores: `MASKED` where a row does not count the slot.
      slot: the first one.
      end: slots from here on hold garbage.
      values: the parts of the values in shared memory.
      place: row of the batch, and key/value head.
    """

    scores: Float[Array, "64 64"]
    slot: Int[Array, ""]
    end: Int[Array, ""]
    values: Sequence[Any]
    place: tuple[Int[Array, ""], Int[Array, ""]]


def sweep(
    step: Callable[..., tuple[Array, ...]],
    initial: Sequence[tuple[tuple[int, ...], float]],
    rows: Float[Array, "B K R H"],
    k: Float[Array, "B K H S"],
    v: Float[Array, "B K S H"] | None,
    plan: Plan,
    *,
    scale: float,
    soft_cap: float | None,
    name: str,
    interpret: bool,
    scratch: Sequence[Any] = (),
    outputs: Sequence[jax.ShapeDtypeStruct] = (),
) -> Sequence[Array]:
    """Folds `step` over the blocks of slots of every block of rows and share.

    Args:
      step: (Block, carry, *scratch, *outputs) → carry.
      initial: shape and value of every array of the carry: (64,) or (64, N).
      rows, k, v, plan: what to go over, rows and their width padded; v may be missing.
      scale, soft_cap: of the scores.
      name: of the kernel.
      interpret: on a CPU, by the interpreter.
      scratch: shared memory for `step`.
      outputs: arrays that `step` writes.

    Returns:
      The arrays of the carry, [Z, B, K, R, …], then the outputs. Of a lone block of rows only the first `plan.rows`,
      rounded up to 8, come back.
    """
    b, kv_heads, count, h = rows.shape
    parts, shares, row_blocks = parts_of(rows.dtype), plan.blocks.shape[2], count // ROWS
    kept = rows_kept(plan)
    keys_values = [padded(k, LANES, SLOTS), *([] if v is None else [padded(v, SLOTS, LANES)])]

    def body(q_gmem, *refs):
        keys_values_gmem, refs = refs[: len(keys_values)], refs[len(keys_values) :]
        (first_gmem, last_gmem, blocks_gmem, ends_gmem), refs = refs[:4], refs[4:]
        carry_gmem, outputs_gmem = refs[: len(initial)], refs[len(initial) :]
        share, head, row = (jax.lax.axis_index(name) for name in ("share", "head", "row"))
        batch, block = row // row_blocks, row % row_blocks
        mine = pl.ds(block * ROWS, ROWS)
        start, steps = (blocks_gmem[batch, block, share, i] for i in range(2))
        first, last = load_rows(first_gmem.at[batch, mine]), load_rows(last_gmem.at[batch, mine])
        end = ends_gmem[batch]
        of_part = [(part * b + batch) * kv_heads + head for part in range(parts)]
        specs = [
            plgpu.BlockSpec((h, SLOTS), lambda i: (0, start + i), transforms=tiled(h)),
            plgpu.BlockSpec((SLOTS, h), lambda i: (start + i, 0), transforms=tiled(h)),
        ][: len(keys_values)]

        def run(q_smem, barrier, *scratch):
            for part in range(parts):
                plgpu.copy_gmem_to_smem(q_gmem.at[of_part[part], mine], q_smem.at[part], barrier)
            plgpu.barrier_wait(barrier)

            def one(indices, *refs):
                *refs, carry = refs
                keys, values = refs[:parts], refs[parts:]
                slot = (start + indices[0]) * SLOTS
                scores = soft_capped(product([q_smem.at[part] for part in range(parts)], keys) * scale, soft_cap)
                scores = jnp.where(counted(slot, first, last), scores, MASKED)
                return step(Block(scores, slot, end, values, (batch, head)), carry, *scratch, *outputs_gmem)

            return plgpu.emit_pipeline(
                one,
                grid=(steps,),
                in_specs=[spec for spec in specs for _ in range(parts)],
                max_concurrent_steps=stages(parts, h + SLOTS, h * len(keys_values)),
                init_carry=tuple(filled(shape, value) for shape, value in initial),
            )(*(ref.at[i] for ref in keys_values_gmem for i in of_part))

        results = pl.run_scoped(
            run,
            plgpu.SMEM((parts, ROWS, h), jnp.bfloat16, transforms=tiled(h)),
            plgpu.Barrier(num_arrivals=parts),
            *scratch,
        )

        def store(*buffers):
            for buffer, x in zip(buffers, results, strict=True):
                buffer[...] = x
            plgpu.commit_smem()
            for buffer, output in zip(buffers, carry_gmem, strict=True):
                to = output.at[share, batch, head, pl.ds(block * ROWS, kept)]
                plgpu.copy_smem_to_gmem(buffer.at[pl.ds(0, kept)], to)
            plgpu.wait_smem_to_gmem(0)

        pl.run_scoped(store, *(plgpu.SMEM(shape, jnp.float32) for shape, _ in initial))

    shape = (shares, b, kv_heads, kept * row_blocks)
    products = len(keys_values) * len(PRODUCTS[parts])
    return plgpu.kernel(
        body,
        out_type=[*(jax.ShapeDtypeStruct((*shape, *each[1:]), jnp.float32) for each, _ in initial), *outputs],
        grid=(shares, kv_heads, b * row_blocks),
        grid_names=("share", "head", "row"),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * rows.size * k.shape[3],
            transcendentals=b * kv_heads * count * k.shape[3],
            bytes_accessed=2 * parts * (rows.size + len(keys_values) * k.size),
        ),
        compiler_params=arithmetic(soft_cap),
        interpret=interpreter(interpret),
        kernel_name=name,
    )(operands(rows), *(operands(x) for x in keys_values), *plan[:4])


def arithmetic(soft_cap: float | None) -> plgpu.CompilerParams:
    """The processor's own exponential (2e-7 of its value), but not its tanh (5e-4)."""
    return plgpu.CompilerParams(approx_math=soft_cap is None)


def rows_kept(plan: Plan) -> int:
    """How many rows of a block come back."""
    return min(ROWS, pl.cdiv(plan.rows, 8) * 8)
