"""Key/value cache of fixed size, one slot per kept position, and the state of recurrent layers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jaxtrace.errors import ConfigError
from jaxtrace.kernels.dispatch import target_platform
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.on_mesh import ROW_AXES, dividing_axes, dividing_kv_head_axes, map_shards
from jaxtrace.models.stacked import LANES, StackedLayers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, or of several layers on a leading axis.

    Slot s holds position `offset` + s of the text, or the s-th vector of an image. Slots are the last axis of the keys,
    as the product with a query needs them: otherwise XLA's CPU backend transposes the whole cache at every step.

    A layer whose queries see few of the latest positions (`LayerKind.kept`) may hold only those. When its slots are
    full, the kept positions move to the first slots. Where `offset` > 0, no query sees slot 0: what a kernel says of
    its weight is true of position 0.

    Attributes:
      k: keys, slots last.
      v: values.
      offset: position in slot 0 of each row; None if the cache holds all positions.
    """

    k: Float[Array, "*L B K H S"]
    v: Float[Array, "*L B K S H"]
    offset: Int[Array, "*L B"] | None = None

    def write(
        self, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], start: Int[Array, " B"], kind: LayerKind
    ) -> LayerCache:
        """Return the cache of one layer with T new positions of each row written from its `start`.

        Raises:
          ConfigError: T positions are more than the slots beside the kept positions.
        """
        cache = self
        if cache.offset is not None:
            assert kind.kept is not None
            room = cache.k.shape[3] - kind.kept
            if k.shape[1] > room:
                raise ConfigError(
                    f"cache: {k.shape[1]} positions are fed at once, and layers with windows have room for {room}; "
                    "feed fewer, or give init_state a larger chunk"
                )
            full = jnp.any(start + k.shape[1] - cache.offset > cache.k.shape[3])
            cache = jax.lax.cond(full, lambda cache: cache.slide(start, kind), lambda cache: cache, cache)
        k, v, slot = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), cache.slot_of(start)
        return LayerCache(_write(cache.k, k, slot, axis=3), _write(cache.v, v, slot, axis=2), cache.offset)

    def slot_of(self, position: Int[Array, " B"]) -> Int[Array, " B"]:
        """Return the slot of a position of each row; below 0 for a position before the kept ones."""
        return position if self.offset is None else position - self.offset

    def slide(self, start: Int[Array, " B"], kind: LayerKind) -> LayerCache:
        """Return the cache that begins with the first position that queries from `start` on need kept."""
        assert self.offset is not None
        chunk, slots = kind.chunk or 1, self.k.shape[3]
        first = jnp.maximum(start // chunk * chunk - (kind.window or chunk), 0)
        k, v = (
            _cut(_fit(x, 2 * slots, axis), first - self.offset, slots, axis) for x, axis in ((self.k, 3), (self.v, 2))
        )
        return LayerCache(k, v, first)

    def resized(self, slots: int, *, window: bool) -> LayerCache:
        """Return the cache with another number of slots, which must hold the positions so far.

        Args:
          slots: new number of slots; the same one between two caches with a window.
          window: True for a cache that need not hold all positions.
        """
        arrays, axes = (self.k, self.v), (self.k.ndim - 1, self.v.ndim - 2)
        if self.offset is None:
            k, v = (_fit(x, slots, axis) for x, axis in zip(arrays, axes, strict=True))
            return LayerCache(k, v, jnp.zeros(k.shape[:-3], jnp.int32) if window else None)
        if window:
            return self

        def at_positions(x: Array, offset: Array, axis: int) -> Array:
            padding = [(slots, slots) if i == axis else (0, 0) for i in range(x.ndim)]
            return _cut(jnp.pad(x, padding), slots - offset, slots, axis)

        each = at_positions if self.offset.ndim == 1 else jax.vmap(at_positions, in_axes=(0, 0, None))
        return LayerCache(each(self.k, self.offset, 3), each(self.v, self.offset, 2))


def _fit(x: Array, slots: int, axis: int) -> Array:
    """Cut or zero-pad an axis to a number of slots."""
    kept = jax.lax.slice_in_dim(x, 0, min(slots, x.shape[axis]), axis=axis)
    return jnp.pad(kept, [(0, slots - n if i == axis else 0) for i, n in enumerate(kept.shape)])


def _cut(x: Float[Array, "B ..."], first: Int[Array, " B"], slots: int, axis: int) -> Array:
    """Return `slots` slots of each row, from slot `first` of the row on."""
    return jax.vmap(lambda x, first: jax.lax.dynamic_slice_in_dim(x, first, slots, axis - 1))(x, first)


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
    config: DecoderConfig,
    batch: int,
    slots: int,
    *,
    stacked: bool,
    dtype: jnp.dtype = jnp.float32,
    image_keys: int = 0,
    chunk: int | None = None,
) -> KVCache:
    """Return an empty cache in the layout of the parameters.

    Args:
      config: decoder's config.
      batch: number of rows (B).
      slots: number of text positions that the cache holds.
      stacked: True if the layers are stacked for a scan.
      dtype: dtype of keys and values.
      image_keys: number of slots of cross-attention layers; 0 without images.
      chunk: largest number of positions that one call feeds. Layers with windows then hold the positions that their
        queries need, if these are fewer; None for all positions in all layers.
    """

    def layer(kind: LayerKind, leading: tuple[int, ...]) -> LayerState:
        if (net := kind.delta_net) is not None:
            shape, heads = (*leading, batch), net.key_heads
            conv = jnp.zeros((*shape, net.conv - 1, heads, net.channels // heads), dtype)
            memory = (*shape, heads, net.value_heads // heads, net.key_dim, net.value_dim)
            return RecurrentState(conv, jnp.zeros(memory, jnp.float32))
        sized, window = config.sized(kind), window_slots(config, kind, slots, chunk)
        size = image_keys if kind.cross_attention else window or slots
        if size == 0 or kind.kv_source is not None:
            return None
        shape = (*leading, batch, sized.kv_heads)
        k, v = (jnp.zeros((*shape, *each), dtype) for each in ((sized.head_dim, size), (size, sized.head_dim)))
        return LayerCache(k, v, None if window is None else jnp.zeros((*leading, batch), jnp.int32))

    if not stacked:
        return [layer(kind, ()) for kind in config.kinds]
    repeats, remainder = divmod(config.num_layers, len(config.pattern))
    return StackedLayers(
        [layer(kind, (repeats,)) for kind in config.pattern], [layer(k, ()) for k in config.pattern[:remainder]]
    )


def compact(cache: LayerState) -> LayerState:
    """Return the cache of stacked layers with a layout that fills a TPU's rows: slots last for values of narrow heads.

    In a loop XLA chooses heads last, pads a head of 64 to 128 entries, and copies the cache before and after the loop.
    """
    if not isinstance(cache, LayerCache) or target_platform() != "tpu" or cache.v.shape[-1] >= LANES:
        return cache
    _, rows, heads, *_ = cache.v.shape
    spec = PartitionSpec(None, dividing_axes(ROW_AXES, rows), dividing_kv_head_axes(heads))
    slots_last = map_shards(lambda v: with_layout_constraint(v, Layout((0, 1, 2, 4, 3))), (spec,), spec)
    return dataclasses.replace(cache, v=slots_last(cache.v))


def window_slots(config: DecoderConfig, kind: LayerKind, slots: int, chunk: int | None) -> int | None:
    """Return the slots of a layer that holds only the positions its queries need; None if it holds all `slots`.

    There is room for a chunk beside them, so that they move only once in `chunk` decode steps. All layers hold all
    positions if some layer attends to the keys of a layer with another window.
    """
    if kind.kept is None or chunk is None or kind.kept + chunk >= slots:
        return None
    shared = [(other, config.kind(other.kv_source)) for other in config.pattern if other.kv_source is not None]
    return kind.kept + chunk if all(other.kept == source.kept for other, source in shared) else None


def cache_bytes(config: DecoderConfig, rows: int, slots: int, itemsize: int, chunk: int | None = None) -> int:
    """Return the bytes of the text caches and recurrent states of rows, as `empty_cache` makes them."""
    per_row = config.recurrent_bytes(itemsize)
    for kind in config.kinds:
        if kind.caches_text:
            sized, held = config.sized(kind), window_slots(config, kind, slots, chunk) or slots
            per_row += 2 * sized.kv_heads * sized.head_dim * itemsize * held
    return rows * per_row


def recurrent_states(cache: KVCache) -> list[RecurrentState]:
    """Return the states of the recurrent layers; those of a stack are one entry."""
    entries = [*cache.repeated, *cache.tail] if isinstance(cache, StackedLayers) else cache
    return [entry for entry in entries if isinstance(entry, RecurrentState)]
