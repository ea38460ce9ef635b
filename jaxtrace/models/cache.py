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
    """Keys and values of one layer, or of all with a leading layer axis. Slot s holds position s."""

    k: Float[Array, "*L B K S H"]
    v: Float[Array, "*L B K S H"]

    def write(self, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], start: Int[Array, " B"]) -> LayerCache:
        """Puts T new positions of each row at its `start`."""

        def put(slots, new, at):
            return jax.lax.dynamic_update_slice(slots, new.swapaxes(0, 1).astype(slots.dtype), (0, at, 0))

        return LayerCache(jax.vmap(put)(self.k, k, start), jax.vmap(put)(self.v, v, start))


KVCache = list[LayerCache] | LayerCache  # a list for unrolled layers, one with a leading layer axis for scanned


def empty_cache(
    config: DecoderConfig, batch: int, slots: int, *, stacked: bool, dtype: jnp.dtype = jnp.float32
) -> KVCache:
    """A cache of `slots` positions for `batch` rows; its layout follows the parameters' (`stacked`)."""
    shape = (batch, config.kv_heads, slots, config.head_dim)
    if stacked:
        shape = (config.layers, *shape)
        return LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    return [LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers)]
