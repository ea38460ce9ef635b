"""Ablation of whole blocks and of single attention heads in a forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.settings.numbers import Natural
from jaxtrace.settings.validation import StrictModel, validated


class _Chosen(StrictModel):
    layers: tuple[Natural, ...]
    heads: tuple[tuple[Natural, Natural], ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Interventions:
    """Ablation masks of a forward pass. They are traced: one compiled program serves every choice.

    An ablated block returns the residual stream unchanged, x_l = x_{l−1}: attention, feed-forward and post-norms add
    nothing. An ablated head adds nothing to its layer's attention; the output's bias stays, and so does a post-norm,
    which is then computed over the other heads. Ablated parts are still computed and measured: their attention metrics
    show where they would attend, their router metrics which experts they would choose, and their keys, values and
    recurrent states advance.

    Attributes:
      layers: mask of blocks, True where ablated; None for no ablated block.
      heads: mask of query heads, True where ablated; None for no ablated head. It does not affect recurrent layers.
    """

    layers: Bool[Array | np.ndarray, "*L"] | None = None
    heads: Bool[Array | np.ndarray, "*L N"] | None = None

    @classmethod
    def of(
        cls, config: DecoderConfig, layers: Iterable[int] = (), heads: Iterable[tuple[int, int]] = ()
    ) -> Interventions:
        """Build both masks for a decoder.

        Args:
          config: decoder's config.
          layers: blocks to ablate, from 1.
          heads: (layer from 1, query head from 0) pairs to ablate.

        Raises:
          ConfigError: a layer or head does not exist, or is no whole number; or a head is of a recurrent layer.
        """
        given = {"layers": list(layers), "heads": list(heads)}
        chosen = validated(_Chosen, given, "interventions")
        count, per_layer = config.num_layers, config.num_heads
        layer_mask, head_mask = np.zeros(count, bool), np.zeros((count, per_layer), bool)
        for layer in chosen.layers:
            if not 1 <= layer <= count:
                raise ConfigError(f"interventions: layer {layer} does not exist; choose from 1 to {count}")
            layer_mask[layer - 1] = True
        for layer, head in chosen.heads:
            if not (1 <= layer <= count and 0 <= head < per_layer):
                raise ConfigError(
                    f"interventions: head {head} of layer {layer} does not exist; choose from layers 1 to {count} and "
                    f"heads 0 to {per_layer - 1}"
                )
            if config.kind(layer - 1).delta_net is not None:
                raise ConfigError(
                    f"interventions: layer {layer} is recurrent and has no attention heads; drop head {head}, or "
                    "ablate the layer"
                )
            head_mask[layer - 1, head] = True
        return cls(layer_mask, head_mask)

    def ablated(self) -> dict[str, list]:
        """Return the ablated layers, from 1, and the ablated [layer, head] pairs."""
        listed: dict[str, list] = {}
        if self.layers is not None:
            listed["layers"] = [int(layer) + 1 for layer in np.flatnonzero(self.layers)]
        if self.heads is not None:
            listed["heads"] = [[int(layer) + 1, int(head)] for layer, head in np.argwhere(self.heads)]
        return listed

    def check(self, config: DecoderConfig) -> None:
        """Raise ConfigError if a mask does not fit the decoder's layers or heads."""
        shapes = {"layers": (config.num_layers,), "heads": (config.num_layers, config.num_heads)}
        for name, shape in shapes.items():
            mask = getattr(self, name)
            if mask is not None and (jnp.shape(mask) != shape or jnp.result_type(mask) != jnp.bool_):
                raise ConfigError(
                    f"interventions: {name} is {jnp.result_type(mask)} {list(jnp.shape(mask))}; it must be bool "
                    f"{list(shape)}, True where ablated"
                )
