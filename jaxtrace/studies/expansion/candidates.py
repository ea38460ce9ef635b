"""The tokens that each layer holds for candidates: the fewest that together reach some probability."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.engine.translators import Translators
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.forward import unembed


class Candidates(NamedTuple):
    """Of each layer's lens.

    Attributes:
      entropy: of its distribution, nats.
      size: of its candidate set.
      shared: tokens that its set and that of the layer before have in common, from the second layer on.
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
    """Entropies, sizes and overlaps of one position's candidate sets, of a layer's distribution at a time.

    A set holds the most likely tokens, the lowest among equals, until they reach `mass` (top-p; arXiv 2502.16570 v3
    takes p = 0.6).

    Args:
      params: of the decoder.
      residuals: residual streams after the layers 0 (the embedding) to L.
      mass: 0 < mass < 1.
      lens: translates them; None for the logit lens.
      config: of the decoder.
    """
    streams = residuals.astype(params["embedding"].dtype)
    if lens is not None:
        streams = lens(streams[:, None, None], range(len(streams)))[:, 0, 0]

    def of_layer(before: Bool[Array, " V"], stream: Float[Array, " D"]):
        logprobs = jax.nn.log_softmax(unembed(config, params, stream))
        order = jnp.argsort(-logprobs, stable=True)
        reached = jnp.cumsum(jnp.exp(logprobs[order]))
        size = jnp.minimum(jnp.sum(reached < mass) + 1, len(order))
        own = jnp.zeros_like(before).at[order].set(jnp.arange(len(order)) < size)
        entropy = -jnp.sum(jnp.exp(logprobs) * logprobs)
        return own, Candidates(entropy, size, jnp.sum(own & before))

    _, found = jax.lax.scan(of_layer, jnp.zeros(config.vocab, bool), streams)
    return found._replace(shared=found.shared[1:])
