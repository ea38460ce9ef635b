"""The key/value cache: fixed size, one slot per position."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.stacked import Stacked


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, or of several with a leading layer axis.

    Slot s holds position s of the text, or the s-th vector of an image.

    Keys are kept as the product with a query wants them, slots last: XLA's CPU backend would otherwise transpose the
    whole cache at every step.
    """

    k: Float[Array, "*L B K H S"]
    v: Float[Array, "*L B K S H"]

    def write(self, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], start: Int[Array, " B"]) -> LayerCache:
        """Puts T new positions of each row at its `start`."""
        k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
        return LayerCache(_put(self.k, k, start, axis=3), _put(self.v, v, start, axis=2))


def _put(slots: Float[Array, "B ..."], new: Float[Array, "B ..."], start: Int[Array, " B"], axis: int) -> Array:
    """Writes new[b] into slots[b] at `start[b]` along `axis`."""
    rows = jnp.arange(len(slots))
    if len(slots) == 1:
        # Twice the same: XLA's CPU backend rewrites a scatter of one update into a form for which it copies the cache.
        rows, new, start = (jnp.concatenate([x, x]) for x in (rows, new, start))
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0, axis)
    )
    places = jnp.stack([rows, start], axis=-1)
    return jax.lax.scatter(slots, places, new.astype(slots.dtype), dimensions, mode="clip")


# One entry per layer, unrolled or stacked; None for a layer that looks at an image where there is none.
KVCache = list[LayerCache | None] | Stacked


def empty_cache(
    config: DecoderConfig, batch: int, slots: int, *, stacked: bool, dtype: jnp.dtype = jnp.float32, image_keys: int = 0
) -> KVCache:
    """A cache for `batch` rows; its layout follows the parameters' (`stacked`).

    Args:
      config: of the decoder.
      batch: rows (B).
      slots: positions of text that it holds.
      stacked: layers stacked for a scan.
      dtype: of keys and values.
      image_keys: slots of the layers that look at an image; 0 for no image.
    """

    def layer(kind: LayerKind, leading: tuple[int, ...]) -> LayerCache | None:
        size = image_keys if kind.cross_attention else slots
        shape = (*leading, batch, config.kv_heads)
        if size == 0:
            return None
        k = jnp.zeros((*shape, config.head_dim, size), dtype)
        return LayerCache(k, jnp.zeros((*shape, size, config.head_dim), dtype))

    if not stacked:
        return [layer(kind, ()) for kind in config.kinds]
    repeats, rest = divmod(config.layers, len(config.pattern))
    return Stacked([layer(kind, (repeats,)) for kind in config.pattern], [layer(k, ()) for k in config.pattern[:rest]])
