"""Conversion and loading of a checkpoint: time, and peak memory beside the parameters themselves.

python -m benchmarks.convert --shape llama-3.2-3b
python -m benchmarks.convert --shape qwen3-moe-3-layers --variants convert "load, Hugging Face" "trace, converted"
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.machine import this_machine
from benchmarks.options import add_model, benchmark_parser
from benchmarks.shapes import checkpoint, largest_parameter
from benchmarks.table import BenchmarkTable
from benchmarks.timing import run_in_new_process, say

MIB = 2**20
POLL = 0.002  # seconds


@dataclass(frozen=True)
class ProcessCost:
    """Time and memory that a variant takes in a new process.

    Attributes:
      seconds: time of the work, without imports.
      held: bytes of the arrays at the end.
      peak: peak anonymous memory (RssAnon) in bytes, less the memory before the work.
      beside: peak of the part of it that was in no JAX array at the time.
    """

    seconds: float
    held: int
    peak: int
    beside: int


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    add_model(parser, "llama-3.2-3b")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--run", nargs=3, metavar=("VARIANT", "SOURCE", "CONVERTED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        variant, source, converted = args.run
        return _work(variant, Path(source), Path(converted))
    with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
        source = checkpoint(args.shape, Path(folder), dtype=ml_dtypes.bfloat16)
        converted = Path(folder) / "converted"
        measured = {}
        for variant in dict.fromkeys(["convert", *args.variants]):
            measured[variant] = _measure(variant, source, converted)
            say(f"{variant}: {measured[variant]}")
        stored = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    _publish(args.shape, stored, measured, args.out)


def _publish(shape: str, stored: int, measured: Mapping[str, ProcessCost], out: Path | None) -> None:
    largest = largest_parameter(shape) * 2
    rows = []
    for variant, cost in measured.items():
        rows.append(
            (
                variant,
                f"{cost.seconds:.1f}",
                f"{stored / cost.seconds / 1e9:.2f}",
                f"{cost.held / MIB:,.0f}",
                f"{cost.peak / MIB:,.0f}",
                *_in_both(cost.peak - cost.held if cost.held else None, largest),
                *_in_both(None if "stacked" in variant else cost.beside, largest),
            )
        )
    BenchmarkTable(
        title=f"Converting and loading, {shape}, bfloat16: {stored / 1e9:.1f} GB in one file per layer",
        columns=(
            "what",
            "s",
            "GB/s",
            "arrays, MiB",
            "peak, MiB",
            "peak − arrays, MiB",
            "of largest",
            "beside live, MiB",
            "of largest",
        ),
        rows=rows,
        above=(this_machine().line, f"Largest parameter: {largest / MIB:,.0f} MiB."),
        below=(
            "Each runs in a new process, after its files were evicted from the page cache. Peak is anonymous memory "
            "(RssAnon, polled every 2 ms) less the memory after the imports. “Arrays” are the arrays at the end; "
            "“beside live” is the peak memory that was in no live JAX array. Stacking writes layers in place, and an "
            "array does not count as live while it is written. RssAnon excludes mapped files, and so the parameters of "
            "transformers, which stay in the mapped files.",
        ),
    ).publish(out)


def _in_both(size: int | None, largest: int) -> tuple[str, str]:
    """Return a size in MiB, and as a multiple of the largest tensor's size."""
    return ("–", "–") if size is None or size < 0 else (f"{size / MIB:,.0f}", f"{size / largest:.2f}×")


def _measure(variant: str, source: Path, converted: Path) -> ProcessCost:
    if variant == "convert":
        shutil.rmtree(converted, ignore_errors=True)
    for folder in (source, converted):
        for path in folder.rglob("*"):
            if path.is_file():
                _evict(path)
    return ProcessCost(**run_in_new_process("benchmarks.convert", "--run", variant, str(source), str(converted)))


def _work(name: str, source: Path, converted: Path) -> None:
    """Import, do the work and print its cost; called in a new process."""
    modules, work = VARIANTS[name]
    for module in modules:
        importlib.import_module(module)
    if "torch" not in modules:
        importlib.import_module("jax").numpy.zeros(1).block_until_ready()
    done = threading.Event()
    samples = []
    before = _anonymous()

    def watch() -> None:
        while not done.wait(POLL):
            live = _live()
            samples.append((_anonymous() - before, min(live, _live())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    arrays = work(source, converted)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    anonymous, live = np.array(samples).T
    held = sum(array.nbytes for array in arrays)
    cost = ProcessCost(seconds, held, int(anonymous.max()), int((anonymous - live).max()))
    print(json.dumps(dataclasses.asdict(cost)), flush=True)


def _live() -> int:
    """Return the bytes of all live JAX arrays."""
    import jax

    return sum(array.nbytes for array in jax.live_arrays())


def _convert(source: Path, converted: Path) -> list[Any]:
    from jaxtrace.checkpoints.convert import convert
    from jaxtrace.checkpoints.huggingface import open_checkpoint

    convert(open_checkpoint(str(source)), converted)
    return []


def _load(name: Path, stacked: bool) -> list[Any]:
    import jax

    import jaxtrace

    params = jaxtrace.load(str(name), dtype="bfloat16", stacked=stacked).params
    return jax.block_until_ready(jax.tree.leaves(params))


def _trace(converted: Path) -> list[Any]:
    import jax

    import jaxtrace

    model = jaxtrace.load(str(converted), dtype="bfloat16")
    model.generate([[1, 2, 3, 4]], max_new_tokens=4)
    return jax.tree.leaves(model.params)


def _load_file(source: Path, _: Path) -> list[Any]:
    import jax
    from safetensors.numpy import load_file

    tensors: dict[str, np.ndarray] = {}
    for file in sorted(source.glob("*.safetensors")):
        tensors |= load_file(file)
    return jax.block_until_ready(jax.tree.leaves(jax.device_put(tensors)))


def _transformers(source: Path, _: Path) -> list[Any]:
    import torch
    from transformers import AutoModelForCausalLM

    return list(AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, local_files_only=True).parameters())


LOADING = ("jaxtrace.model", "orbax.checkpoint.experimental.v1")
# Variant → (modules imported before the clock starts, function of the two checkpoints that returns arrays).
VARIANTS: dict[str, tuple[tuple[str, ...], Callable[[Path, Path], list[Any]]]] = {
    "convert": (("jaxtrace.checkpoints.convert", "jaxtrace.checkpoints.huggingface"), _convert),
    "load, Hugging Face": (LOADING, lambda source, _: _load(source, False)),
    "load, converted": (LOADING, lambda _, converted: _load(converted, False)),
    "load stacked, Hugging Face": (LOADING, lambda source, _: _load(source, True)),
    "load stacked, converted": (LOADING, lambda _, converted: _load(converted, True)),
    "trace, converted": (LOADING, lambda _, converted: _trace(converted)),
    "safetensors load_file, then device_put": (("safetensors.numpy",), _load_file),
    "transformers from_pretrained": (("torch", "transformers"), _transformers),
}


def _anonymous() -> int:
    """Return the bytes of this process's memory that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def _evict(path: Path) -> None:
    """Evict a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
