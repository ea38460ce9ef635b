"""Softmax moments for TPUs (Mosaic): blocks of rows over tiles of the vocabulary, each read once."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from ..moments import MASKED, Alphas, Moments
from ..tiles import RunningSums, shift_sums
from ..tpu_tiles import (
    LARGEST_INDEX,
    SUBLANES,
    TopTwo,
    add_sums,
    empty_sums,
    empty_top,
    interpreter,
    mask_absent,
    packed,
    tile_sums,
    unpacked,
    update_top,
)
from .types import SoftmaxSums

TILE = 2048  # entries of a row that are in registers together
TILES = 8  # tiles that one step of the grid reads: 512 KiB of float32, enough to hide the cost of a step


def refuses(logits: Float[Array, "R V"], **_: Any) -> str | None:
    """Return why the kernel cannot serve rows of this length, or None."""
    size = logits.shape[1]
    return None if size <= LARGEST_INDEX else f"rows of {size} entries are longer than 2**24"


def softmax_moments(
    logits: Float[Array, "R V"], *, alphas: Alphas, temperature: Float[Array, " R"] | None, interpret: bool = False
) -> SoftmaxSums:
    """Compute softmax_moments on a TPU."""
    if logits.dtype not in (jnp.float32, jnp.bfloat16):
        logits = logits.astype(jnp.float32)
    rows, size = logits.shape
    block, tile = min(rows, SUBLANES), min(size, TILE)
    width = tile * min(TILES, pl.cdiv(size, tile))
    scale = jnp.ones(rows, jnp.float32) if temperature is None else 1 / temperature
    state = jax.eval_shape(lambda: packed(_empty_state(rows, alphas)))
    result = pl.pallas_call(
        functools.partial(_kernel, tile=tile, size=size, alphas=alphas, scaled=temperature is not None),
        grid=(pl.cdiv(rows, block), pl.cdiv(size, width)),
        in_specs=[pl.BlockSpec((block, 1), lambda i, j: (i, 0)), pl.BlockSpec((block, width), lambda i, j: (i, j))],
        out_specs=pl.BlockSpec((block, state.shape[1]), lambda i, j: (i, 0)),
        out_shape=state,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=20 * logits.size, transcendentals=logits.size, bytes_accessed=logits.nbytes
        ),
        interpret=interpreter(interpret),
        name="softmax_moments",
    )(scale[:, None], logits)
    top, sums = jax.tree.map(lambda x: x[:, 0], unpacked(result, _empty_state(rows, alphas)))
    m, second = top.largest, top.second
    if temperature is not None:
        m, second = (jnp.where(x <= MASKED, MASKED, x / temperature) for x in (m, second))
    r = jnp.stack(sums.r, axis=1) if alphas else jnp.zeros((rows, 0), jnp.float32)
    return SoftmaxSums(Moments(m, sums.l, sums.a, sums.b, r, alphas, sums.c), top.index.astype(jnp.int32), second)


def _empty_state(rows: int, alphas: Alphas) -> tuple[TopTwo, RunningSums]:
    return empty_top(rows), empty_sums(rows, alphas)


def _kernel(
    scale_ref: Any, logits_ref: Any, state_ref: Any, *, tile: int, size: int, alphas: Alphas, scaled: bool
) -> None:
    """Add the sums of the tiles of `logits_ref`, and their unscaled top two, to `state_ref`."""
    rows, width = logits_ref.shape
    begin = pl.program_id(1) * width
    scale = scale_ref[...] if scaled else 1.0

    @pl.when(begin == 0)
    def _() -> None:
        state_ref[...] = packed(_empty_state(rows, alphas))

    def step(i: Any, state: tuple[TopTwo, RunningSums]) -> tuple[TopTwo, RunningSums]:
        top, sums = state
        scores = logits_ref[:, pl.ds(pl.multiple_of(i * tile, tile), tile)].astype(jnp.float32)
        first = begin + i * tile
        scores = mask_absent(scores, first + lax.broadcasted_iota(jnp.int32, scores.shape, 1) < size)
        new_top = update_top(top, scores, first)
        sums = shift_sums(sums, (top.largest - new_top.largest) * scale, alphas)
        _, _, new_sums = tile_sums(scores, new_top.largest, alphas, scale)
        return new_top, add_sums(sums, new_sums)

    state = unpacked(state_ref[...], _empty_state(rows, alphas))
    state_ref[...] = packed(lax.fori_loop(0, width // tile, step, state))
