"""Images as the image encoder takes them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.models.config import VisionConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Images:
    """Up to I images of each row, each cut into up to M tiles.

    Attributes:
      pixels: of every tile, normalised.
      aspect_ratio: id of each image's shape in tiles (its place among `VisionConfig.aspect_ratios`, from 1); 0 where
        there is no image.
      tiles: which tiles are not padding.
    """

    pixels: Float[Array, "B I M C Y X"]
    aspect_ratio: Int[Array, "B I"]
    tiles: Bool[Array, "B I M"]

    @property
    def own(self) -> Bool[Array, "B I*M"]:
        """The tiles of each row's own images, padding tiles included."""
        return jnp.repeat(self.aspect_ratio > 0, self.tiles.shape[-1], axis=-1)

    def keys(self, vision: VisionConfig) -> int:
        """Vectors that cross-attention sees of a row."""
        return self.tiles.shape[1] * self.tiles.shape[2] * vision.patches
