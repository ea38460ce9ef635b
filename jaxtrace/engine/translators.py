"""Translators of a tuned lens: one affine map per layer, from its residual stream to the last layer's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtrace.kernels import einsum
from jaxtrace.models.config import DecoderConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Translators:
    """Affine maps x + A_l x + b_l of layers 0 (the embedding) to L − 1; the last layer's stream needs none.

    Source: Belrose and others, "Eliciting Latent Predictions from Transformers with the Tuned Lens" (arXiv 2303.08112).
    With all parameters zero they are the logit lens.

    Attributes:
      weight: matrices A_l, [out, in].
      bias: vectors b_l.
    """

    weight: Float[Array, "L D D"]
    bias: Float[Array, "L D"]

    @classmethod
    def zeros(cls, config: DecoderConfig) -> Translators:
        """Return the translators of the logit lens, float32."""
        layers, width = config.num_layers, config.embed_dim
        return cls(jnp.zeros((layers, width, width)), jnp.zeros((layers, width)))

    def __call__(self, x: Float[Array, "R B T D"], layers: Sequence[int]) -> Float[Array, "R B T D"]:
        """Translate residual streams, each with its layer's translator; sums are in float32.

        Args:
          x: one residual stream per layer in `layers`.
          layers: ascending layer numbers, from 0 to L; the last layer's stream is returned unchanged.
        """
        translated = np.array([layer for layer in layers if layer < len(self.weight)], int)
        before, last = x[: len(translated)], x[len(translated) :]
        change = einsum("rbtd,red->rbte", before, self.weight[translated], jnp.float32)
        change += self.bias[translated, None, None]
        return jnp.concatenate([(before + change).astype(x.dtype), last])
