"""Feed-forward blocks of experts: a router chooses experts for each token, and every chosen expert is computed.

No token is dropped. On a mesh each device computes the experts that it holds and its part of the shared expert, for the
tokens of its rows.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from jaxtrace.kernels import linear
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.expert_products import (
    Chosen,
    ExpertForm,
    ExpertWeights,
    compute_experts,
    expert_output,
    map_weights,
)
from jaxtrace.models.norms import RMSNorm
from jaxtrace.models.on_mesh import MODEL_AXES, ROW_AXES, dividing_axes, map_shards
from jaxtrace.models.parameters import add_bias, optional_bias, random_weight
from jaxtrace.models.router import RouterOutputs, RouterTrace
from jaxtrace.models.stacked import weight_specs

MIN_SUM = 1e-20  # added to the sum of scores by which they are divided: all sigmoids of a token may be 0


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
    """Sum of the outputs of the experts that the router chooses for each token, and of the shared expert.

    Sources: Shazeer et al. 2017, "Outrageously Large Neural Networks", and Jiang et al. 2024, "Mixtral of Experts", for
    softmax scores; DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", for sigmoid scores, a bias in the choice and a
    shared expert.
    """

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

        def compute_shard(
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
                output = expert_output(x, shared, self.form.activation)
                out += output if gate is None else gate * output
            out = out.astype(x.dtype)
            return out if axes is None else jax.lax.psum(out, axes)

        shared_specs: Any = None if shared is None else ExpertWeights(*cast(Any, (P(axes), P(axes), P(None, axes))))
        weights = self.experts.weights
        specs = P(rows), P(rows), P(rows), map_weights(lambda w: weight_specs(w, axes), weights), shared_specs
        return map_shards(compute_shard, specs, P(rows))(x, chosen, gate, weights, shared)

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
