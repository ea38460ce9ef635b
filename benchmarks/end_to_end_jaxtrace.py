"""`jaxtrace trace` with a clock: python -m benchmarks.end_to_end_jaxtrace BEGAN WORD… prints its spans as JSON."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.end_to_end_spans import Spans


def main(began: float, words: list[str]) -> None:
    """Run the command, and print the spans."""
    spans, watcher = Spans(began), ThreadPoolExecutor(1)
    from jaxtrace.cli.app import run

    written = time_stages(spans, watcher, began)
    run(words)
    watcher.shutdown()
    spans.add("plots, tables", written[-1])
    spans.print_json()


def time_stages(spans: Spans, watcher: ThreadPoolExecutor, began: float) -> list[float]:
    """Make the stages of a run add their spans; return a list that gets the time at which its files are closed.

    Prefills are waited for, since their results are given away. A chunk of steps runs beside the host: another thread
    waits for its flags, which nobody donates.
    """
    import jax

    from jaxtrace import run
    from jaxtrace.compilation import STAGES
    from jaxtrace.engine import loop
    from jaxtrace.engine.metric_buffer import MetricBuffer
    from jaxtrace.engine.pool import Pool
    from jaxtrace.model import Model
    from jaxtrace.traces import TraceWriter

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event in STAGES:
            spans.add("compiling", time.time() - duration_secs)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    spans.wrap(run, "encode_prompts", "tokenising")
    spans.wrap(MetricBuffer, "add_steps", "draining", lambda batches: iter(list(batches)))
    spans.wrap(Pool, "local_to_host", "draining")
    spans.wrap(Model, "_generated_row", "draining")
    written: list[float] = []
    spans.wrap(TraceWriter, "write", "writing")
    spans.wrap(TraceWriter, "close", "writing", lambda _: written.append(time.time()))
    admit, call, prepare = Pool.admit, Pool.call, run.prepare

    def timed_prepare(*args: Any, **kwargs: Any) -> Any:
        prepared = prepare(*args, **kwargs)
        spans.add("start-up", began)
        return prepared

    def timed_admit(self: Pool) -> None:
        with spans.of("prefill"):
            admit(self)
            jax.block_until_ready(self.state)

    def timed_call(self: Pool, program: Any, *arguments: Any, **static: Any) -> Any:
        def wait() -> None:
            jax.block_until_ready(flags)
            spans.add("decode", start)

        start = time.time()
        results = call(self, program, *arguments, **static)
        if program is loop.decode_chunk:
            flags = results[2:]
            watcher.submit(wait)
        return results

    Pool.admit, Pool.call, run.prepare = timed_admit, timed_call, timed_prepare
    return written


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
