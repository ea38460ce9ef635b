"""Outputs of the experts that a router chose, in the fastest way for the number of rows and the platform."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import linear
from jaxtrace.kernels.dispatch import target_platform, with_gradients_of
from jaxtrace.kernels.precision import product_precision
from jaxtrace.models.activations import gated
from jaxtrace.models.config import ClampedGate
from jaxtrace.models.stacked import LayerOfStack, whole_layer

# Mean rows of an expert from which a GPU uses ragged_dot (unmeasured). On a CPU it computes every expert for all rows.
# On a TPU it reads as many weights as the loop, and copies them first. Figures: benchmarks/results/experts-*.md.
RAGGED = 32


class ExpertWeights(NamedTuple):
    """Weights of one expert, or of several on a first axis, down(act(gate(x)) · up(x)), and their biases, if any."""

    gate: Float[Array, "*e F D"]
    up: Float[Array, "*e F D"]
    down: Float[Array, "*e D F"]
    gate_bias: Float[Array, "*e F"] | None = None
    up_bias: Float[Array, "*e F"] | None = None
    down_bias: Float[Array, "*e D"] | None = None


class ExpertForm(NamedTuple):
    """Form of an expert's output.

    Attributes:
      activation: name of the activation function, or a clamped one.
      scores_on_inputs: True if an expert's score multiplies its input, not its output.
    """

    activation: str | ClampedGate
    scores_on_inputs: bool = False


class Chosen(NamedTuple):
    """Experts that a router chose for R rows.

    Attributes:
      expert: numbers of the experts; E, the number of experts, for one that is not computed here.
      weight: factors on the experts' outputs, float32.
    """

    expert: Int[Array, "R C"]
    weight: Float[Array, "R C"]


def compute_experts(
    x: Float[Array, "R D"], chosen: Chosen, weights: ExpertWeights, form: ExpertForm, *, devices: int = 1
) -> Float[Array, "R D"]:
    """Return the weighted sum of each row's experts, float32, in the fastest way for the rows and the platform.

    Args:
      x: rows.
      chosen: experts of each row.
      weights: weights of the experts of this device.
      form: form of an expert's output.
      devices: number of devices that hold as many other experts each.
    """
    (rows, count), number, platform = chosen.expert.shape, len(weights.gate) * devices, target_platform()
    mean = rows * count / number  # rows of an expert
    if count == number:
        return dense(x, chosen, weights, form)
    if platform not in ("cpu", "tpu") and mean >= RAGGED:
        return ragged(x, chosen, weights, form)
    return tiled(x, chosen, weights, form, size=tile_size(mean, platform))


def tile_size(mean: float, platform: str) -> int:
    """Return the number of rows of one expert that are multiplied at once, a power of two.

    From twice the mean most experts are read once. On a CPU rows that are not used cost time too: 256 rows over 128
    experts (mean 16) take 191 ms in sixteens, 177 in 32s and 323 in 64s (Qwen3-30B-A3B, 2 cores). On a TPU a product of
    up to 240 rows takes as long as reading its weights (v5e: 197 TFLOP/s, 819 GB/s), and 8 rows are the least.
    """
    size = 1 << math.ceil(math.log2(max(1, 2 * mean)))
    if platform == "cpu":
        return 1 if mean <= 1 / 4 else min(32, max(4, size))
    return min(256, max(8, size))


def dense(x: Float[Array, "R D"], chosen: Chosen, weights: ExpertWeights, form: ExpertForm) -> Float[Array, "R D"]:
    """Compute every expert for every row, one expert after another."""

    def add(out: Array, number: Array) -> tuple[Array, None]:
        weight = map_weights(lambda w: w[number], weights)
        is_chosen = chosen.expert == number
        factor = jnp.where(is_chosen, chosen.weight, 0).sum(-1, keepdims=True)
        return out + jnp.where(is_chosen.any(-1, keepdims=True), _weighted(x, factor, weight, form), 0), None

    return jax.lax.scan(add, jnp.zeros(x.shape, jnp.float32), jnp.arange(len(weights.gate)))[0]


def ragged(x: Float[Array, "R D"], chosen: Chosen, weights: ExpertWeights, form: ExpertForm) -> Float[Array, "R D"]:
    """Sort the rows by expert, and multiply each group of rows with `jax.lax.ragged_dot`."""
    sorting, weights = _Sorted.of(chosen, len(weights.gate)), map_weights(whole_layer, weights)

    def product(x: Array, weight: Array, bias: Array | None, dtype: jnp.dtype) -> Array:
        out = jax.lax.ragged_dot_general(
            x,
            weight,
            sorting.counts,
            jax.lax.RaggedDotDimensionNumbers((((1,), (2,)), ((), ())), [0], [0]),
            precision=product_precision(x, weight),
            preferred_element_type=dtype,
        )
        return out if bias is None else out + bias[sorting.expert]

    # Rows of no expert here are undefined in the products, and must be so in no gradient.
    computed = (jnp.arange(chosen.expert.size) < sorting.counts.sum())[:, None]
    rows, factor = jnp.where(computed, x[sorting.row], 0), sorting.weight[:, None]
    if form.scores_on_inputs:
        rows, factor = (factor * rows).astype(x.dtype), 1
    gate = product(rows, weights.gate, weights.gate_bias, x.dtype)
    up = product(rows, weights.up, weights.up_bias, x.dtype)
    out = product(gated(form.activation, gate, up), weights.down, weights.down_bias, jnp.dtype(jnp.float32))
    out = factor * jnp.where(computed, out, 0)
    return jnp.zeros(x.shape, jnp.float32).at[sorting.row].add(out)


def tiled(
    x: Float[Array, "R D"], chosen: Chosen, weights: ExpertWeights, form: ExpertForm, *, size: int
) -> Float[Array, "R D"]:
    """Sort the rows by expert, and compute `size` rows of one expert at a time; other experts are not read.

    The gradients are those of `dense`, since a loop whose length depends on the choice has none in reverse mode. With a
    fixed length and a condition in each step, XLA re-lays all weights of Gemma 4's experts for TPUs, 33 MiB a layer.
    """
    function = functools.partial(_tiled, form=form, size=size)
    return with_gradients_of(functools.partial(dense, form=form), function, (x, chosen, weights), {})


def _tiled(x: Array, chosen: Chosen, weights: ExpertWeights, form: ExpertForm, size: int) -> Array:
    number, assignments = len(weights.gate), chosen.expert.size
    sorting = _Sorted.of(chosen, number)
    tiles = -(-sorting.counts // size)
    ends, starts = jnp.cumsum(tiles), jnp.cumsum(sorting.counts) - sorting.counts

    def tile(i: Array, out: Array) -> Array:
        expert = jnp.sum(ends <= i)  # one operation; a binary search would be a loop inside this one
        first = starts[expert] + (i - ends[expert] + tiles[expert]) * size
        slots = first + jnp.arange(size)
        in_group = slots < starts[expert] + sorting.counts[expert]
        slots = jnp.minimum(slots, assignments - 1)
        row, weight = sorting.row[slots], map_weights(lambda w: w[expert], weights)
        y = jnp.where(in_group[:, None], _weighted(x[row], sorting.weight[slots, None], weight, form), 0)
        return out.at[row].add(y)

    return jax.lax.fori_loop(0, ends[-1], tile, jnp.zeros(x.shape, jnp.float32))


def map_weights(function: Callable[[Any], Any], weights: ExpertWeights) -> Any:
    """Return the weights with a function applied to each array, or to each `LayerOfStack`."""
    return jax.tree.map(function, weights, is_leaf=lambda w: isinstance(w, LayerOfStack))


class _Sorted(NamedTuple):
    """Rows sorted by expert, once for each of their experts; those that are not computed here are last."""

    row: Int[Array, " A"]
    expert: Int[Array, " A"]
    weight: Float[Array, " A"]
    counts: Int[Array, " E"]

    @classmethod
    def of(cls, chosen: Chosen, number: int) -> _Sorted:
        order = jnp.argsort(chosen.expert.ravel(), stable=True)
        counts = jnp.bincount(chosen.expert.ravel(), length=number + 1)[:number]
        expert, weight = (x.ravel()[order] for x in chosen)
        return cls(order // chosen.expert.shape[1], expert, weight, counts.astype(jnp.int32))


def _weighted(
    x: Float[Array, "R D"], factor: Float[Array, "R 1"], weights: ExpertWeights, form: ExpertForm
) -> Float[Array, "R D"]:
    """Return the output of one expert for rows with some factors, float32."""
    if form.scores_on_inputs:
        return expert_output((factor * x).astype(x.dtype), weights, form.activation)
    return factor * expert_output(x, weights, form.activation)


def expert_output(
    x: Float[Array, "*r D"], weights: ExpertWeights, activation: str | ClampedGate
) -> Float[Array, "*r D"]:
    """Return the output of one expert, float32."""

    def product(x: Array, weight: Array, bias: Array | None, dtype: Any = None) -> Array:
        out = linear(x, weight, dtype)
        return out if bias is None else out + bias

    gate, up = product(x, weights.gate, weights.gate_bias), product(x, weights.up, weights.up_bias)
    return product(gated(activation, gate, up), weights.down, weights.down_bias, jnp.float32)
