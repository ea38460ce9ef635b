"""What a step reads and multiplies on each device, counted from the shapes of what it has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtrace.engine.step import State
from jaxtrace.models.cache import KVCache, LayerCache
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import Params, unembedding
from jaxtrace.models.stacked import Stacked
from jaxtrace.planning.cost import trace_bytes
from jaxtrace.planning.program import Job, shard_bytes, shard_size


@dataclass(frozen=True)
class Work:
    """Bytes moved between memory and chip, and operations of matrix products, of one device.

    Attributes:
      weights: bytes of the weights that are multiplied by, each once.
      cache: bytes of keys and values that are looked at, with every slot filled.
      tracing: bytes that a step with no probes does not move: keys seen again, streams kept and read, metrics.
      flops: operations of the step with no probes; a multiplication and an addition are two.
      tracing_flops: operations that the probes add.
    """

    weights: int
    cache: int
    tracing: int
    flops: int
    tracing_flops: int

    @property
    def all_bytes(self) -> int:
        """Bytes of the whole step."""
        return self.weights + self.cache + self.tracing

    @property
    def all_flops(self) -> int:
        """Operations of the whole step."""
        return self.flops + self.tracing_flops


def decode_work(job: Job) -> Work:
    """One decode step of all rows, each of as many positions as its cache holds."""
    return _work(job, job.state(job.batch), 1, measured=True)


def prefill_work(job: Job) -> Work:
    """A chunk of positions of a group of rows, the last of their contexts."""
    return _work(job, job.state(job.group), job.chunk, measured=job.probes.prompt_positions)


def _work(job: Job, state: State, queries: int, *, measured: bool) -> Work:
    """That of so many positions of each row; those that are not measured are not unembedded either."""
    config, probes, table = job.config, job.probes, unembedding(job.params)
    positions = queries * shard_size(state.length)
    weights, cache, flops = _layers_work(job, state, positions, queries)
    stream = probes.stream(config) if measured else probes.carried(config)
    tracing = 2 * positions * len(stream) * config.embed * table.dtype.itemsize
    if not measured:
        return Work(weights, cache, tracing, flops, 0)
    by_group = trace_bytes(config, probes, positions=job.slots)
    tracing += positions * (sum(by_group.values()) - by_group[""])
    tracing_flops = 0
    if probes.lens:
        layers = len(probes.layers(config))
        again = layers if probes.lens_renyi else 0
        tracing_flops += 2 * (layers - 1 + again) * shard_size(table) * positions
    if probes.dispersion:
        for kind, block, keys in _looking(job, state):
            seen = _seen(kind, keys)
            tracing += int(seen * shard_bytes(keys.k))
            tracing_flops += int(2 * queries * seen * _sharing(block, keys) * shard_size(keys.k))
    unembedded = 2 * shard_size(table) * positions
    return Work(weights + shard_bytes(table), cache, tracing, flops + unembedded, tracing_flops)


def _layers_work(job: Job, state: State, positions: int, queries: int) -> tuple[int, int, int]:
    """(bytes of weights, bytes of the cache, operations) of the layers; each row has so many `queries`."""
    weights = cache = flops = 0
    for kind, block, keys in _looking(job, state):
        attention, feed_forward = block["attention"], block["feed_forward"]
        products = [attention[name] for name in ("q", "o")]
        products += [feed_forward[name] for name in ("gate", "up", "down") if name in feed_forward]
        if not kind.cross_attention:  # those of an image are made once, before the steps
            products += [attention[name] for name in ("k", "v")]
        weights += shard_bytes(products)
        flops += 2 * positions * sum(map(shard_size, products))
        seen = _seen(kind, keys)
        cache += int(seen * shard_bytes(keys))
        flops += int(2 * queries * seen * _sharing(block, keys) * (shard_size(keys.k) + shard_size(keys.v)))
    return weights, cache, flops


def _looking(job: Job, state: State) -> Iterator[tuple[LayerKind, Params, LayerCache]]:
    """The kind, weights and cache of every layer, or of every stack of layers of a kind."""
    weights, caches = (_listed(job.config, tree) for tree in (job.params["layers"], state.cache))
    for (kind, block), (_, keys) in zip(weights, caches, strict=True):
        yield kind, block, keys


def _listed(config: DecoderConfig, layers: Sequence[Any] | KVCache) -> list[tuple[LayerKind, Any]]:
    if isinstance(layers, Stacked):
        return [*zip(config.pattern, layers.repeated, strict=True), *zip(config.pattern, layers.rest, strict=False)]
    return list(zip(config.kinds, layers, strict=True))


def _seen(kind: LayerKind, keys: LayerCache) -> float:
    """The part of a full cache that a query sees."""
    slots = keys.k.shape[-1]
    return min(kind.window or slots, slots) / slots


def _sharing(block: Params, keys: LayerCache) -> int:
    """Query heads of a device for each of its key heads."""
    heads, key_heads = (_heads(x) for x in (block["attention"]["q"], keys.k))
    return max(1, heads // key_heads)


def _heads(x: Any) -> int:
    return x.sharding.shard_shape(x.shape)[-3]
