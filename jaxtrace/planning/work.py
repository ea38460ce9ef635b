"""Bytes and operations of a step on each device, counted from the shapes of its shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtrace.engine.step import State
from jaxtrace.models.cache import KVCache, LayerCache, RecurrentState
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import Params, unembedding
from jaxtrace.models.stacked import StackedLayers
from jaxtrace.planning.cost import lens_rows, trace_bytes
from jaxtrace.planning.program import Job, shard_bytes, shard_size


@dataclass(frozen=True)
class Work:
    """Bytes moved between memory and chip, and operations of matrix products, on one device.

    Attributes:
      weights: bytes of the weights in matrix products, each once; those of experts are the mean over choices of experts
        that are independent between positions.
      cache: bytes of keys and values that are read, with every slot filled, and of recurrent states, read and written.
      tracing: bytes that the probes add: a second reading of keys, residual streams, metrics.
      flops: operations of a step without probes; a multiply-add is two.
      tracing_flops: operations that the probes add.
    """

    weights: int
    cache: int
    tracing: int
    flops: int
    tracing_flops: int

    @property
    def all_bytes(self) -> int:
        """Bytes of the step, tracing included."""
        return self.weights + self.cache + self.tracing

    @property
    def all_flops(self) -> int:
        """Operations of the step, tracing included."""
        return self.flops + self.tracing_flops


def decode_work(job: Job) -> Work:
    """Return the work of one decode step of all rows with full caches."""
    return _work(job, job.state(job.batch), 1, measured=True)


def prefill_work(job: Job) -> Work:
    """Return the work of prefilling the last chunk of the contexts of a group of rows."""
    return _work(job, job.state(job.group), job.chunk, measured=job.probes.prompt_positions)


def _work(job: Job, state: State, queries: int, *, measured: bool) -> Work:
    """Return the work of `queries` positions of each row; positions that are not measured are not unembedded."""
    config, probes, table = job.config, job.probes, unembedding(job.params)
    positions = queries * shard_size(state.length)
    weights, cache, flops = _layers_work(job, state, positions, queries)
    if config.layer_input:
        projection = job.params["layer_inputs"]["projection"]
        weights += shard_bytes(projection)
        flops += 2 * positions * shard_size(projection)
    stream = probes.stream(config) if measured else probes.carried(config)
    tracing = 2 * positions * len(stream) * config.embed_dim * table.dtype.itemsize
    if not measured:
        return Work(weights, cache, tracing, flops, 0)
    by_group = trace_bytes(config, probes, positions=job.slots)
    tracing += positions * (sum(by_group.values()) - by_group[""])
    tracing_flops = 0
    if probes.lens:
        tracing_flops += int(2 * lens_rows(config, probes) * shard_size(table) * positions)
        tracing += shard_bytes(table) // probes.lens_every * (probes.lens_every > 1)  # a second unembedding
    if probes.dispersion:
        for kind, block, cached in _blocks(job, state):
            if isinstance(cached, RecurrentState):
                continue
            visible = _visible_share(kind, cached)
            tracing += int(visible * shard_bytes(cached.k))
            tracing_flops += int(2 * queries * visible * _queries_per_key_head(block, cached) * shard_size(cached.k))
    unembedded = 2 * shard_size(table) * positions
    return Work(weights + shard_bytes(table), cache, tracing, flops + unembedded, tracing_flops)


def _layers_work(job: Job, state: State, positions: int, queries: int) -> tuple[int, int, int]:
    """Return (bytes of weights, bytes of the cache, operations) of the layers; each row has `queries` positions."""
    weights = cache = flops = 0
    for kind, block, cached in _blocks(job, state):
        feed_forward = block["feed_forward"]
        dense = feed_forward.get("dense", feed_forward)
        products = [dense[name] for name in ("gate", "up", "down") if name in dense]
        products += [feed_forward[name] for name in ("router", "shared_gate") if name in feed_forward]
        products += feed_forward.get("shared", {}).values()
        products += [block["layer_input"][name] for name in ("gate", "down") if "layer_input" in block]
        products += _mixing_products(kind, block)
        weights += shard_bytes(products)
        flops += 2 * positions * sum(map(shard_size, products))
        if (experts := job.config.experts) is not None and "experts" in feed_forward:
            share = experts.chosen / experts.number  # of the experts, for each position
            weights += int((1 - (1 - share) ** positions) * shard_bytes(feed_forward["experts"]))
            flops += int(2 * positions * share * sum(map(shard_size, feed_forward["experts"].values())))
        if isinstance(cached, RecurrentState):
            cache += 2 * shard_bytes(cached)
            flops += 6 * queries * shard_size(cached.memory)  # read with the key, written, read with the query
            continue
        visible = _visible_share(kind, cached)
        cache += int(visible * shard_bytes(cached))
        entries = shard_size(cached.k) + shard_size(cached.v)
        flops += int(2 * queries * visible * _queries_per_key_head(block, cached) * entries)
    return weights, cache, flops


def _mixing_products(kind: LayerKind, block: Params) -> list[Any]:
    """Return the weights of the matrix products of a layer's attention or delta net."""
    if kind.delta_net is not None:
        return [block["delta_net"][name] for name in ("q", "k", "v", "decay", "beta", "gate", "o")]
    # Keys and values of an image are computed once, before the steps.
    names = ("q", "output_gate", "o") if kind.cross_attention else ("q", "output_gate", "k", "v", "o")
    return [block["attention"][name] for name in names if name in block["attention"]]


def _blocks(job: Job, state: State) -> Iterator[tuple[LayerKind, Params, LayerCache | RecurrentState]]:
    """Yield the kind, weights and the cache that is read of every layer, or of every stack of layers of one kind."""
    weights, caches = (_by_kind(job.config, tree) for tree in (job.params["layers"], state.cache))
    for (kind, block), (_, cached) in zip(weights, caches, strict=True):
        yield kind, block, cached if kind.kv_source is None else caches[kind.kv_source][1]


def _by_kind(config: DecoderConfig, layers: Sequence[Any] | KVCache) -> list[tuple[LayerKind, Any]]:
    if isinstance(layers, StackedLayers):
        return [*zip(config.pattern, layers.repeated, strict=True), *zip(config.pattern, layers.tail, strict=False)]
    return list(zip(config.kinds, layers, strict=True))


def _visible_share(kind: LayerKind, cached: LayerCache) -> float:
    """Return the share of a full cache that a query attends to."""
    slots = cached.k.shape[-1]
    return min(kind.window or kind.chunk or slots, slots) / slots


def _queries_per_key_head(block: Params, cached: LayerCache) -> int:
    """Return the number of query heads for each key head on a device."""
    heads, key_heads = (x.sharding.shard_shape(x.shape)[-3] for x in (block["attention"]["q"], cached.k))
    return max(1, heads // key_heads)
