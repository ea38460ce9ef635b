"""The key/value cache: fixed size, one slot per position."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrace.models.config import DecoderConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, or of all with a leading layer axis. Slot s holds position s.

    Keys are kept as the product with a query wants them, slots last: XLA's CPU backend would otherwise transpose the
    whole cache at every step.
    """

    k: Float[Array, "*L B K H S"]
    v: Float[Array, "*L B K S H"]

    @property
    def keys(self) -> Float[Array, "*L B K S H"]:
        """The keys, slots before head dims, as attention takes them."""
        return self.k.swapaxes(-1, -2)

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


KVCache = list[LayerCache] | LayerCache  # a list for unrolled layers, one with a leading layer axis for scanned


def empty_cache(
    config: DecoderConfig, batch: int, slots: int, *, stacked: bool, dtype: jnp.dtype = jnp.float32
) -> KVCache:
    """A cache of `slots` positions for `batch` rows; its layout follows the parameters' (`stacked`)."""
    leading = (config.layers,) if stacked else ()
    shape = (*leading, batch, config.kv_heads)

    def layer() -> LayerCache:
        k = jnp.zeros((*shape, config.head_dim, slots), dtype)
        return LayerCache(k, jnp.zeros((*shape, slots, config.head_dim), dtype))

    return layer() if stacked else [layer() for _ in range(config.layers)]
