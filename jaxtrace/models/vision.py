"""Image encoder of Llama 3.2 Vision as a Flax NNX module: it maps tiles of pixels to vectors for the decoder."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.kernels import einsum, linear
from jaxtrace.models.activations import ACTIVATIONS
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.norms import LayerNorm
from jaxtrace.models.parameters import random_weight, tanh_gated
from jaxtrace.models.vision_config import VisionConfig

QUERIES = 256  # number of vectors whose attention is computed at once: all four tiles of 11B at once would take 2.6 GB
ALIGNMENT = 8  # vectors of a tile are padded to a multiple of this, and the padding takes part in attention


class VisionAttention(nnx.Module):
    """Attention of every vector of an image to all vectors. Weights are [out, in] with heads folded, as stored."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        self.heads = config.num_heads
        self.q, self.k, self.v, self.o = (random_weight(rngs, config.embed_dim, config.embed_dim) for _ in range(4))

    def __call__(self, x: Float[Array, "S E"], padding: Bool[Array, " S"]) -> Float[Array, "S E"]:
        q, k, v = (linear(x, weight[...]).reshape(len(x), self.heads, -1) for weight in (self.q, self.k, self.v))

        def attend(query: tuple[Float[Array, "N H"], Bool[Array, ""]]) -> Float[Array, "N H"]:
            vector, is_padding = query
            scores = einsum("nh,snh->ns", vector, k, jnp.float32) * k.shape[-1] ** -0.5
            # Padding is masked only for padding queries, as in the training of the model.
            scores = jnp.where(is_padding & padding, jnp.finfo(jnp.float32).min, scores)
            return einsum("ns,snh->nh", jax.nn.softmax(scores).astype(v.dtype), v)

        out = jax.lax.map(attend, (q, padding), batch_size=QUERIES)
        return linear(out.reshape(x.shape), self.o[...])


class VisionFeedForward(nnx.Module):
    """down(gelu(up(x)))."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        self.up = random_weight(rngs, config.feed_forward, config.embed_dim)
        self.up_bias = nnx.Param(jnp.zeros(config.feed_forward))
        self.down = random_weight(rngs, config.embed_dim, config.feed_forward)
        self.down_bias = nnx.Param(jnp.zeros(config.embed_dim))

    def __call__(self, x: Float[Array, "S E"]) -> Float[Array, "S E"]:
        hidden = ACTIVATIONS["gelu"](linear(x, self.up[...]) + self.up_bias[...])
        return linear(hidden, self.down[...]) + self.down_bias[...]


class VisionBlock(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x)); global layers gate both terms by tanh."""

    def __init__(self, config: VisionConfig, gated: bool, rngs: nnx.Rngs) -> None:
        self.attention_norm = LayerNorm(config, config.embed_dim)
        self.attention = VisionAttention(config, rngs)
        self.feed_forward_norm = LayerNorm(config, config.embed_dim)
        self.feed_forward = VisionFeedForward(config, rngs)
        self.attention_gate, self.feed_forward_gate = (nnx.Param(jnp.zeros(1)) if gated else None for _ in range(2))

    def __call__(self, x: Float[Array, "S E"], padding: Bool[Array, " S"]) -> Float[Array, "S E"]:
        x = x + tanh_gated(self.attention(self.attention_norm(x), padding), self.attention_gate)
        return x + tanh_gated(self.feed_forward(self.feed_forward_norm(x)), self.feed_forward_gate)


class Projector(nnx.Module):
    """Linear map from the encoder's output width to the decoder's width."""

    def __init__(self, width: int, embed_dim: int, rngs: nnx.Rngs) -> None:
        self.weight = random_weight(rngs, embed_dim, width)
        self.bias = nnx.Param(jnp.zeros(embed_dim))

    def __call__(self, x: Float[Array, "*r W"]) -> Float[Array, "*r D"]:
        return linear(x, self.weight[...]) + self.bias[...]


class VisionEncoder(nnx.Module):
    """A transformer over all tiles of an image, a second one with gated layers, and the projection into the decoder.

    Embeddings of tiles have one row per aspect ratio id, with all tiles (and vectors) folded into it, as stored.
    """

    def __init__(self, decoder: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        assert decoder.vision is not None
        self.config = config = decoder.vision
        width, patch = config.embed_dim, config.patch_size
        ratios = len(config.aspect_ratios) + 1
        self.patch_embedding = random_weight(rngs, width, config.channels, patch, patch)
        self.class_embedding = random_weight(rngs, width)
        self.pre_tile_embedding = random_weight(rngs, ratios, config.max_tiles * width)
        self.post_tile_embedding = random_weight(rngs, ratios, config.max_tiles * width)
        self.position_embedding = random_weight(rngs, config.patches, width)
        self.tile_position_embedding = random_weight(rngs, ratios, config.max_tiles * config.patches * width)
        self.pre_tile_gate, self.post_tile_gate, self.position_gate = (nnx.Param(jnp.zeros(1)) for _ in range(3))
        outer = dataclasses.replace(config, norm_eps=1e-5)  # fixed; the config's value is for the layers
        self.pre_norm, self.post_norm = LayerNorm(outer, width), LayerNorm(outer, width)
        self.layers = nnx.List([VisionBlock(config, False, rngs) for _ in range(config.num_layers)])
        self.global_layers = nnx.List([VisionBlock(config, True, rngs) for _ in range(config.global_layers)])
        self.projector = Projector(config.output_width, decoder.embed_dim, rngs)

    def __call__(
        self,
        pixels: Float[Array, "B I M C P P"],
        aspect_ratio_id: Int[Array, "B I"],
        tile_mask: Bool[Array, "B I M"],
    ) -> Float[Array, "B S D"]:
        """Return S = images · tiles · patches vectors per row for cross-attention layers, one image after another.

        Args:
          pixels: tiles of P·P pixels, normalised; zeros for padding tiles and absent images.
          aspect_ratio_id: 1 + the index of an image's shape in `aspect_ratios`; 0 for an absent image.
          tile_mask: True for tiles with pixels; the vectors of an image without any are undefined.
        """
        rows, images = aspect_ratio_id.shape
        flat = (x.reshape(rows * images, *x.shape[2:]) for x in (pixels, aspect_ratio_id, tile_mask))
        states = jax.lax.map(lambda image: self._encode(*image), tuple(flat))
        return states.reshape(rows, -1, states.shape[-1])

    def _encode(
        self, pixels: Float[Array, "M C P P"], ratio: Int[Array, ""], tile_mask: Bool[Array, " M"]
    ) -> Float[Array, "M patches D"]:
        config = self.config
        tiles, width, patches = len(pixels), config.embed_dim, config.patches

        x = self._patches(pixels) + self._tile_embedding(self.pre_tile_embedding, self.pre_tile_gate, ratio)
        first = jnp.broadcast_to(self.class_embedding[...], (tiles, 1, width))
        x = jnp.concatenate([first, x], axis=1)
        by_tile = self._tile_embedding(self.tile_position_embedding, self.position_gate, ratio)
        x = self.pre_norm(x + (1 - jnp.tanh(self.position_gate[...])) * self.position_embedding[...] + by_tile)

        padded = -(-patches // ALIGNMENT) * ALIGNMENT
        x = jnp.pad(x, ((0, 0), (0, padded - patches), (0, 0))).reshape(tiles * padded, width)
        padding = (~tile_mask[:, None] | (jnp.arange(padded) >= patches)).reshape(-1)

        layer_outputs = {}
        for i, block in enumerate(self.layers):
            x = block(x, padding)
            if i in config.outputs:
                layer_outputs[i] = x
        x = self.post_norm(x).reshape(tiles, padded, width)
        x = x + self._tile_embedding(self.post_tile_embedding, self.post_tile_gate, ratio)
        x = x.reshape(tiles * padded, width)
        for block in self.global_layers:
            x = block(x, padding)

        # The projector's input is the last output, then for each dimension its values in all of `outputs`.
        interleaved = jnp.stack([layer_outputs[i] for i in config.outputs], axis=-1).reshape(tiles * padded, -1)
        out = jnp.concatenate([x, interleaved], axis=-1).reshape(tiles, padded, -1)
        return self.projector(out[:, :patches])

    def _patches(self, pixels: Float[Array, "M C P P"]) -> Float[Array, "M n E"]:
        weight = self.patch_embedding[...]
        tiles, channels, height, width = pixels.shape
        size = self.config.patch_size
        cut = pixels.astype(weight.dtype).reshape(tiles, channels, height // size, size, width // size, size)
        return einsum("mchpwq,ecpq->mhwe", cut, weight).reshape(tiles, -1, len(weight))

    def _tile_embedding(self, table: nnx.Param, gate: nnx.Param, ratio: Int[Array, ""]) -> Float[Array, "M n E"]:
        return jnp.tanh(gate[...]) * table[...][ratio].reshape(self.config.max_tiles, -1, self.config.embed_dim)
