"""Candidate tokens of each layer: the fewest that together reach some probability."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.engine.translators import Translators
from jaxtrace.kernels.moments import entropy_of
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.forward import unembed


class Candidates(NamedTuple):
    """Candidate sets of R layers' lenses at one position.

    Attributes:
      entropy: entropy of each layer's distribution, nats.
      size: number of candidates of each layer.
      shared: number of candidates that each layer from the second on shares with the layer before it.
    """

    entropy: Float[Array, " R"]
    size: Int[Array, " R"]
    shared: Int[Array, " R-1"]


@functools.partial(jax.jit, static_argnames="config")
def candidates(
    params: Params,
    residuals: Float[Array, "R D"],
    mass: Float[Array, ""] | float,
    lens: Translators | None = None,
    *,
    config: DecoderConfig,
) -> Candidates:
    """Return entropies, sizes and overlaps of one position's candidate sets, with one layer's logits at a time.

    A set holds the most likely tokens, the lowest id first among equals, until they reach `mass` (top-p; arXiv
    2502.16570 v3 uses p = 0.6).

    Args:
      residuals: residual streams after the layers 0 (the embedding) to L.
      mass: probability that a set reaches, 0 < mass < 1.
      lens: translators of a tuned lens; None for the logit lens.
    """
    streams = residuals.astype(params["embedding"].dtype)
    if lens is not None:
        streams = lens(streams[:, None, None], range(len(streams)))[:, 0, 0]

    def next_layer(before: Bool[Array, " V"], stream: Float[Array, " D"]) -> tuple[Bool[Array, " V"], Candidates]:
        logprobs = jax.nn.log_softmax(unembed(config, params, stream))
        order = jnp.argsort(-logprobs, stable=True)
        reached = jnp.cumsum(jnp.exp(logprobs[order]))
        size = jnp.minimum(jnp.sum(reached < mass) + 1, len(order))
        members = jnp.zeros_like(before).at[order].set(jnp.arange(len(order)) < size)
        return members, Candidates(entropy_of(jnp.exp(logprobs)), size, jnp.sum(members & before))

    _, layers = jax.lax.scan(next_layer, jnp.zeros(config.vocab_size, bool), streams)
    return layers._replace(shared=layers.shared[1:])
