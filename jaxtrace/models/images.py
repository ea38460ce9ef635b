"""Images in the form that the image encoder takes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.models.vision_config import VisionConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Images:
    """Up to I images per row, each cut into up to M tiles.

    Attributes:
      pixels: normalised pixels of every tile.
      aspect_ratio: id of each image's shape in tiles: 1 + its index in `VisionConfig.aspect_ratios`; 0 where there is
        no image.
      tile_mask: True for tiles with pixels, False for padding tiles.
    """

    pixels: Float[Array, "B I M C Y X"]
    aspect_ratio: Int[Array, "B I"]
    tile_mask: Bool[Array, "B I M"]

    @property
    def row_tiles(self) -> Bool[Array, "B I*M"]:
        """Mask of the tiles of each row's images, padding tiles included."""
        return jnp.repeat(self.aspect_ratio > 0, self.tile_mask.shape[-1], axis=-1)

    def keys(self, vision: VisionConfig) -> int:
        """Return the number of vectors per row that cross-attention attends to."""
        return self.tile_mask.shape[1] * self.tile_mask.shape[2] * vision.patches
