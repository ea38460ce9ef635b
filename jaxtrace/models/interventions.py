"""What is left out of a forward pass: whole blocks, and single heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Interventions:
    """Masks of what a forward pass leaves out. They are traced: one compiled program serves every choice.

    A block that is left out passes the residual stream on as it came, x_l = x_{l−1}: attention and feed-forward add
    nothing, post-norms included. A head that is left out adds nothing to its layer's attention; the output's bias and
    a post-norm, which is over what the other heads give, stay. What is left out is computed and measured all the same:
    its attention metrics say where it would have looked.

    Attributes:
      skip: blocks, True where left out; None for no such mask.
      heads: query heads, True where left out; None for no such mask.
    """

    skip: Bool[Array | np.ndarray, "*L"] | None = None
    heads: Bool[Array | np.ndarray, "*L N"] | None = None

    @classmethod
    def of(
        cls, config: DecoderConfig, layers: Iterable[int] = (), heads: Iterable[tuple[int, int]] = ()
    ) -> Interventions:
        """Both masks of a decoder.

        Args:
          config: of the decoder.
          layers: blocks to leave out, from 1.
          heads: (layer from 1, query head from 0) pairs to leave out.

        Raises:
          ConfigError: there is no such layer or head.
        """
        skip, of_heads = np.zeros(config.layers, bool), np.zeros((config.layers, config.heads), bool)
        for layer in layers:
            if not 1 <= layer <= config.layers:
                raise ConfigError(f"interventions: no layer {layer} to leave out; there are 1 to {config.layers}")
            skip[layer - 1] = True
        for layer, head in heads:
            if not (1 <= layer <= config.layers and 0 <= head < config.heads):
                raise ConfigError(
                    f"interventions: no head {head} of layer {layer} to leave out; there are layers 1 to "
                    f"{config.layers} and heads 0 to {config.heads - 1}"
                )
            of_heads[layer - 1, head] = True
        return cls(skip, of_heads)

    def left_out(self) -> dict[str, list]:
        """The layers, from 1, and the [layer, head] pairs that are left out."""
        found: dict[str, list] = {}
        if self.skip is not None:
            found["layers"] = [int(layer) + 1 for layer in np.flatnonzero(self.skip)]
        if self.heads is not None:
            found["heads"] = [[int(layer) + 1, int(head)] for layer, head in np.argwhere(self.heads)]
        return found

    def check(self, config: DecoderConfig) -> None:
        """Raises ConfigError for a mask that is not of the decoder's layers or heads."""
        wanted = {"skip": (config.layers,), "heads": (config.layers, config.heads)}
        for name, shape in wanted.items():
            mask = getattr(self, name)
            if mask is not None and (jnp.shape(mask) != shape or jnp.result_type(mask) != jnp.bool_):
                raise ConfigError(
                    f"interventions: {name} must be bool {list(shape)}, True where it is left out, "
                    f"and is {jnp.result_type(mask)} {list(jnp.shape(mask))}"
                )
