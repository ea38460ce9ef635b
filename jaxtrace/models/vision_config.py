"""The configuration of the image encoder, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionConfig:
    """The image encoder of Llama 3.2 Vision: a tiled ViT, its global layers, and a projection into the decoder.

    Attributes:
      embed_dim: width of the residual stream.
      num_layers: number of layers of the first transformer.
      global_layers: number of gated layers of the second transformer.
      num_heads: number of attention heads; divides `embed_dim`.
      feed_forward: hidden width of the feed-forward block.
      image_size: side of a tile, in pixels.
      patch_size: side of a patch, in pixels.
      channels: number of channels of the image.
      max_tiles: largest number of tiles of one image.
      aspect_ratios: (height, width) in tiles that an image may have; their ids count from 1, and 0 is no image.
      outputs: layers (0-based) of the first transformer whose outputs the decoder sees besides the last output, as
        transformers ≥ 4.57 reads `intermediate_layers_indices`; Meta's code takes the inputs of these layers.
      norm_eps: constant added to the variance inside layer norms.
    """

    embed_dim: int
    num_layers: int
    global_layers: int
    num_heads: int
    feed_forward: int
    image_size: int
    patch_size: int
    channels: int
    max_tiles: int
    aspect_ratios: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]
    norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        """Number of vectors per tile that the decoder sees: the patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def output_width(self) -> int:
        """Width of the projector's input: the last output and the outputs of the layers `outputs`."""
        return self.embed_dim * (1 + len(self.outputs))
