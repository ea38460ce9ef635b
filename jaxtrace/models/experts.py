"""Feed-forward blocks of experts: a router chooses experts for each token, and every chosen expert is computed.

No token is dropped. On a mesh each device computes the experts that it holds and its part of the shared expert, for the
tokens of its rows.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import linear
from jaxtrace.kernels.dispatch import target_platform, with_gradients_of
from jaxtrace.kernels.moments import Moments
from jaxtrace.kernels.precision import product_precision
from jaxtrace.models.activations import gated
from jaxtrace.models.config import ClampedGate, DecoderConfig
from jaxtrace.models.norms import RMSNorm
from jaxtrace.models.on_mesh import MODEL_AXES, ROW_AXES, dividing_axes, map_shards
from jaxtrace.models.parameters import add_bias, optional_bias, random_weight
from jaxtrace.models.stacked import LayerOfStack, weight_specs, whole_layer

# Mean rows of an expert from which a GPU uses ragged_dot (unmeasured). On a CPU it computes every expert for all rows.
# On a TPU it reads as many weights as the loop, and copies them first. Figures: benchmarks/results/experts-*.md.
RAGGED = 32
MIN_SUM = 1e-20  # added to the sum of scores by which they are divided: all sigmoids of a token may be 0


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


@dataclasses.dataclass(frozen=True)
class RouterOutputs:
    """Router outputs that a block is asked to return.

    Attributes:
      metrics: True for entropy and mass.
      experts: True for the numbers of the chosen experts.
    """

    metrics: bool
    experts: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterTrace:
    """Metrics of one layer's router; None if not requested.

    Attributes:
      entropy: −Σ p ln p of the router's distribution over all experts, float32; NaN without a router.
      top_mass: mass of the chosen experts under the same distribution, float32; NaN without a router.
      experts: numbers of the chosen experts, the first choice first; −1 without a router.
    """

    entropy: Float[Array, "B T"] | None
    top_mass: Float[Array, "B T"] | None
    experts: Int[Array, "B T C"] | None

    @classmethod
    def of(cls, scores: Float[Array, "B T E"], expert: Int[Array, "B T C"], outputs: RouterOutputs) -> RouterTrace:
        """Return the trace of a router.

        Args:
          scores: scores whose softmax is the router's distribution, float32: its logits, or `log_sigmoid` of them,
            whose softmax is the sigmoids divided by their sum.
          expert: numbers of the chosen experts.
          outputs: requested outputs.
        """
        entropy = top_mass = None
        if outputs.metrics:
            with jax.named_scope("router_metrics"):
                entropy = Moments.of(scores).entropy
                top_mass = jnp.take_along_axis(jax.nn.softmax(scores, axis=-1), expert, axis=-1).sum(-1)
        return cls(entropy, top_mass, expert if outputs.experts else None)

    @classmethod
    def absent(cls, shape: tuple[int, ...], chosen: int, outputs: RouterOutputs) -> RouterTrace:
        """Return the trace of a layer without a router; `shape` is (B, T)."""
        nothing = jnp.full(shape, jnp.nan) if outputs.metrics else None
        return cls(nothing, nothing, jnp.full((*shape, chosen), -1, jnp.int32) if outputs.experts else None)


class Experts(nnx.Module):
    """Weights of all experts on a first axis, or of one expert."""

    def __init__(self, rngs: nnx.Rngs, *number: int, feed_forward: int, embed_dim: int, bias: bool = False) -> None:
        self.gate = random_weight(rngs, *number, feed_forward, embed_dim)
        self.up = random_weight(rngs, *number, feed_forward, embed_dim)
        self.down = random_weight(rngs, *number, embed_dim, feed_forward)
        self.gate_bias, self.up_bias = (optional_bias(bias, *number, feed_forward) for _ in range(2))
        self.down_bias = optional_bias(bias, *number, embed_dim)

    @property
    def weights(self) -> ExpertWeights:
        """Arrays of the weights."""
        biases = (None if bias is None else bias[...] for bias in (self.gate_bias, self.up_bias, self.down_bias))
        return ExpertWeights(self.gate[...], self.up[...], self.down[...], *biases)


class ExpertFeedForward(nnx.Module):
    """Sum of the outputs of the experts that the router chooses for each token, and of the shared expert."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs) -> None:
        assert config.experts is not None
        self.config = experts = config.experts
        self.form = ExpertForm(experts.clamped or config.activation, experts.scores_on_inputs)
        e, f, d = experts.number, experts.feed_forward, config.embed_dim
        self.router_norm = RMSNorm(config, d) if experts.router_norm else None
        self.router = random_weight(rngs, e, d)
        self.expert_scale = nnx.Param(jnp.ones(e)) if experts.expert_scale else None
        self.selection_bias = optional_bias(experts.selection_bias, e)
        self.router_bias = optional_bias(experts.router_bias, e)
        self.experts = Experts(rngs, e, feed_forward=f, embed_dim=d, bias=experts.bias)
        self.shared = Experts(rngs, feed_forward=experts.shared, embed_dim=d) if experts.shared else None
        self.shared_gate = random_weight(rngs, 1, d) if experts.shared_gate else None

    def __call__(self, x: Float[Array, "B T D"], outputs: RouterOutputs) -> tuple[Float[Array, "B T D"], RouterTrace]:
        chosen, trace = self.choose(x, outputs)
        return self.compute(x, chosen), trace

    def compute(self, x: Float[Array, "B T D"], chosen: Chosen) -> Float[Array, "B T D"]:
        """Return the weighted sum of the outputs of each token's experts, and of the shared expert."""
        shared = None if self.shared is None else self.shared.weights
        gate = None if self.shared_gate is None else jax.nn.sigmoid(linear(x, self.shared_gate[...], jnp.float32))
        rows, axes = dividing_axes(ROW_AXES, len(x)), dividing_axes(MODEL_AXES, self.config.number)

        def of_shard(
            x: Array, chosen: Chosen, gate: Array | None, weights: ExpertWeights, shared: ExpertWeights | None
        ) -> Array:
            held = len(weights.gate)
            if axes is not None:
                local = chosen.expert - jax.lax.axis_index(axes) * held
                chosen = chosen._replace(expert=jnp.where((local >= 0) & (local < held), local, held))
            chosen = Chosen(*(y.reshape(-1, self.config.chosen) for y in chosen))
            devices = self.config.number // held
            out = compute_experts(x.reshape(-1, x.shape[-1]), chosen, weights, self.form, devices=devices)
            out = out.reshape(x.shape)
            if shared is not None:
                output = _expert(x, shared, self.form.activation)
                out += output if gate is None else gate * output
            out = out.astype(x.dtype)
            return out if axes is None else jax.lax.psum(out, axes)

        of_shared: Any = None if shared is None else ExpertWeights(*cast(Any, (P(axes), P(axes), P(None, axes))))
        weights = self.experts.weights
        specs = P(rows), P(rows), P(rows), _map_weights(lambda w: weight_specs(w, axes), weights), of_shared
        return map_shards(of_shard, specs, P(rows))(x, chosen, gate, weights, shared)

    def choose(self, x: Float[Array, "B T D"], outputs: RouterOutputs) -> tuple[Chosen, RouterTrace]:
        """Return the experts of each token, those with the highest scores first, and their factors."""
        if self.router_norm is not None:
            x = self.router_norm(x) * x.shape[-1] ** -0.5
        logits = add_bias(linear(x, self.router[...], jnp.float32), self.router_bias)
        sigmoid = self.config.scoring == "sigmoid"
        scores = jax.nn.sigmoid(logits) if sigmoid else jax.nn.softmax(logits, axis=-1)
        # Without a bias the order is that of the logits, where sigmoids that round to 1 are equal.
        ranks = logits if self.selection_bias is None else scores + self.selection_bias[...]
        expert = jax.lax.top_k(ranks, self.config.chosen)[1]
        trace = RouterTrace.of(jax.nn.log_sigmoid(logits) if sigmoid else logits, expert, outputs)
        weight = jnp.take_along_axis(scores, expert, axis=-1)
        if self.config.normalised:
            weight = weight / (weight.sum(-1, keepdims=True) + MIN_SUM)
        if self.expert_scale is not None:
            weight = weight * self.expert_scale[...][expert]
        return Chosen(expert, weight if self.config.scale == 1 else self.config.scale * weight), trace


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

    From twice the mean most experts are read once. On a CPU rows that are not used cost time too: 16 rows over 128
    experts (mean 1) take 132 ms in ones, 95 in fours and 108 in eights (Qwen3-30B-A3B, 2 cores). On a TPU a product of
    up to 240 rows takes as long as reading its weights (v5e: 197 TFLOP/s, 819 GB/s), and 8 rows are the least.
    """
    size = 1 << math.ceil(math.log2(max(1, 2 * mean)))
    if platform == "cpu":
        return 1 if mean <= 1 / 4 else min(32, max(4, size))
    return min(256, max(8, size))


def dense(x: Float[Array, "R D"], chosen: Chosen, weights: ExpertWeights, form: ExpertForm) -> Float[Array, "R D"]:
    """Compute every expert for every row, one expert after another."""

    def add(out: Array, number: Array) -> tuple[Array, None]:
        weight = _map_weights(lambda w: w[number], weights)
        is_chosen = chosen.expert == number
        factor = jnp.where(is_chosen, chosen.weight, 0).sum(-1, keepdims=True)
        return out + jnp.where(is_chosen.any(-1, keepdims=True), _weighted(x, factor, weight, form), 0), None

    return jax.lax.scan(add, jnp.zeros(x.shape, jnp.float32), jnp.arange(len(weights.gate)))[0]


def ragged(x: Float[Array, "R D"], chosen: Chosen, weights: ExpertWeights, form: ExpertForm) -> Float[Array, "R D"]:
    """Sort the rows by expert, and multiply each group of rows with `jax.lax.ragged_dot`."""
    sorting, weights = _Sorted.of(chosen, len(weights.gate)), _map_weights(whole_layer, weights)

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
        mine = slots < starts[expert] + sorting.counts[expert]
        slots = jnp.minimum(slots, assignments - 1)
        row, weight = sorting.row[slots], _map_weights(lambda w: w[expert], weights)
        y = jnp.where(mine[:, None], _weighted(x[row], sorting.weight[slots, None], weight, form), 0)
        return out.at[row].add(y)

    return jax.lax.fori_loop(0, ends[-1], tile, jnp.zeros(x.shape, jnp.float32))


def _map_weights(function: Callable[[Any], Any], weights: ExpertWeights) -> Any:
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
        return _expert((factor * x).astype(x.dtype), weights, form.activation)
    return factor * _expert(x, weights, form.activation)


def _expert(x: Float[Array, "*r D"], weights: ExpertWeights, activation: str | ClampedGate) -> Float[Array, "*r D"]:
    """Return the output of one expert, float32."""

    def product(x: Array, weight: Array, bias: Array | None, dtype: Any = None) -> Array:
        out = linear(x, weight, dtype)
        return out if bias is None else out + bias

    gate, up = product(x, weights.gate, weights.gate_bias), product(x, weights.up, weights.up_bias)
    return product(gated(activation, gate, up), weights.down, weights.down_bias, jnp.float32)
