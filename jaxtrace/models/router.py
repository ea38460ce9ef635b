"""Metrics of the router of a layer with experts, and the numbers of the chosen experts."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrace.kernels.moments import Moments


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
      entropy: −Σ p ln p of the distribution over all experts (softmax, or sigmoids divided by their sum), in
        nats, float32; NaN without a router.
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
