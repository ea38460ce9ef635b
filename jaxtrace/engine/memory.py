"""Memory of a run: rows whose caches cannot fit are refused, and failures to allocate are explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax

from jaxtrace.engine.buckets import cache_chunk
from jaxtrace.engine.pool import PoolEntry
from jaxtrace.engine.settings import Settings
from jaxtrace.memory import check_fits, format_bytes, memory_errors
from jaxtrace.models.cache import cache_bytes
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.parallel.memory import memory_limit


@contextmanager
def running_rows(
    config: DecoderConfig, params: Params, entries: Sequence[PoolEntry], rows: int, settings: Settings
) -> Iterator[None]:
    """Refuse a run whose caches cannot fit, and explain failures to allocate during it.

    Args:
      config: config of the decoder.
      params: parameters of the decoder.
      entries: prompts of the run.
      rows: largest number of rows that run at once.
      settings: settings of the run.

    Raises:
      OutOfMemoryError: the run does not fit.
    """
    rows = min(rows, len(entries))
    slots = max((entry.slots(config.context) for entry in entries), default=0)
    itemsize = params["embedding"].dtype.itemsize
    chunk = cache_chunk(settings.probes, deterministic=settings.deterministic)
    cache = cache_bytes(config, rows, slots, itemsize, chunk)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))

    def describe(asked: str) -> str:
        return (
            f"out of memory: the caches of {rows} rows of {slots:,} positions take {format_bytes(cache)}, beside "
            f"{format_bytes(weights)} of weights{asked}; lower batch_size (--batch-size) or max_new_tokens, shorten "
            "the prompts, record less, or choose a smaller dtype (--dtype) or more devices (--mesh)"
        )

    loaded = 0 if jax.default_backend() == "cpu" else weights  # a CPU's free memory excludes them
    check_fits((cache + loaded) // jax.process_count(), memory_limit(), describe)
    with memory_errors(describe):
        yield
