"""The translators of a tuned lens: an affine map of each layer's residual stream to that of the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtrace.models.config import DecoderConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Translators:
    """x + A_l x + b_l of the layers 0 (the embedding) to L − 1; the last layer's stream is what it is.

    Belrose and others, "Eliciting Latent Predictions from Transformers with the Tuned Lens" (arXiv 2303.08112). All
    zero, they are the logit lens.

    Attributes:
      weight: A_l, [out, in].
      bias: b_l.
    """

    weight: Float[Array, "L D D"]
    bias: Float[Array, "L D"]

    @classmethod
    def zeros(cls, config: DecoderConfig) -> Translators:
        """Those of the logit lens, float32."""
        layers, width = config.layers, config.embed
        return cls(jnp.zeros((layers, width, width)), jnp.zeros((layers, width)))

    def __call__(self, x: Float[Array, "R B T D"], layers: Sequence[int]) -> Float[Array, "R B T D"]:
        """Residual streams after some layers, ascending, each by its own translator; sums are in float32."""
        own = np.array([layer for layer in layers if layer < len(self.weight)], int)
        before, rest = x[: len(own)], x[len(own) :]
        moved = jnp.einsum("rbtd,red->rbte", before, self.weight[own], preferred_element_type=jnp.float32)
        moved += self.bias[own, None, None]
        return jnp.concatenate([(before + moved).astype(x.dtype), rest])
