"""Key/value cache of fixed size, one slot per position, and the state of recurrent layers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.stacked import StackedLayers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, or of several layers on a leading axis.

    Slot s holds position s of the text, or the s-th vector of an image. Slots are the last axis of the keys, as the
    product with a query needs them: otherwise XLA's CPU backend transposes the whole cache at every step.
    """

    k: Float[Array, "*L B K H S"]
    v: Float[Array, "*L B K S H"]

    def write(self, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], start: Int[Array, " B"]) -> LayerCache:
        """Return the cache with T new positions of each row written from its `start`."""
        k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
        return LayerCache(_write(self.k, k, start, axis=3), _write(self.v, v, start, axis=2))


def _write(slots: Float[Array, "B ..."], new: Float[Array, "B ..."], start: Int[Array, " B"], axis: int) -> Array:
    """Write new[b] into slots[b] at `start[b]` along `axis`."""
    rows = jnp.arange(len(slots))
    if len(slots) == 1:
        # The row is written twice: XLA's CPU backend copies the whole cache for a scatter with a single update.
        rows, new, start = (jnp.concatenate([x, x]) for x in (rows, new, start))
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0, axis)
    )
    indices = jnp.stack([rows, start], axis=-1)
    return jax.lax.scatter(slots, indices, new.astype(slots.dtype), dimensions, mode="clip")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RecurrentState:
    """State of one gated delta net, or of several on a leading axis; zeros before the first position.

    Attributes:
      conv: inputs of the convolution at the latest C − 1 positions, the oldest first; each key head has those of
        its query, its key and its values.
      memory: matrix of each of the G value heads of a key head, float32.
    """

    conv: Float[Array, "*L B C-1 K X"]
    memory: Float[Array, "*L B K G H W"]


# Entry of a layer; None for a cross-attention layer without images, and for a layer that attends to the keys and values
# of another.
LayerState = LayerCache | RecurrentState | None
KVCache = list[LayerState] | StackedLayers  # one entry per layer, unrolled or stacked


def empty_cache(
    config: DecoderConfig, batch: int, slots: int, *, stacked: bool, dtype: jnp.dtype = jnp.float32, image_keys: int = 0
) -> KVCache:
    """Return an empty cache in the layout of the parameters.

    Args:
      config: decoder's config.
      batch: number of rows (B).
      slots: number of text positions that the cache holds.
      stacked: True if the layers are stacked for a scan.
      dtype: dtype of keys and values.
      image_keys: number of slots of cross-attention layers; 0 without images.
    """

    def layer(kind: LayerKind, leading: tuple[int, ...]) -> LayerState:
        if (net := kind.delta_net) is not None:
            shape, heads = (*leading, batch), net.key_heads
            conv = jnp.zeros((*shape, net.conv - 1, heads, net.channels // heads), dtype)
            memory = (*shape, heads, net.value_heads // heads, net.key_dim, net.value_dim)
            return RecurrentState(conv, jnp.zeros(memory, jnp.float32))
        size, sized = image_keys if kind.cross_attention else slots, config.sized(kind)
        if size == 0 or kind.kv_source is not None:
            return None
        shape = (*leading, batch, sized.kv_heads)
        k = jnp.zeros((*shape, sized.head_dim, size), dtype)
        return LayerCache(k, jnp.zeros((*shape, size, sized.head_dim), dtype))

    if not stacked:
        return [layer(kind, ()) for kind in config.kinds]
    repeats, remainder = divmod(config.num_layers, len(config.pattern))
    return StackedLayers(
        [layer(kind, (repeats,)) for kind in config.pattern], [layer(k, ()) for k in config.pattern[:remainder]]
    )


def recurrent_states(cache: KVCache) -> list[RecurrentState]:
    """Return the states of the recurrent layers; those of a stack are one entry."""
    entries = [*cache.repeated, *cache.tail] if isinstance(cache, StackedLayers) else cache
    return [entry for entry in entries if isinstance(entry, RecurrentState)]
