"""Converting and loading a checkpoint: time, and the most memory taken beside the parameters themselves.

python -m benchmarks.convert --shape llama-3.2-3b
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
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
from benchmarks.options import add_common
from benchmarks.shapes import SHAPES, checkpoint
from benchmarks.table import Table
from benchmarks.timing import say

MIB = 2**20
POLL = 0.002  # seconds


@dataclass(frozen=True)
class Measured:
    """What a process of its own took.

    Attributes:
      seconds: of the work, imports left out.
      held: bytes of the arrays that it ended with.
      peak: most anonymous memory (RssAnon) in bytes, less what it had before the work.
      beside: most of it that was in no JAX array at the time.
    """

    seconds: float
    held: int
    peak: int
    beside: int


def main() -> None:
    """Runs the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_common(parser, shape="llama-3.2-3b")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--run", nargs=3, metavar=("VARIANT", "SOURCE", "CONVERTED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        variant, source, converted = args.run
        return _work(VARIANTS[variant], Path(source), Path(converted))
    with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
        source = checkpoint(args.shape, Path(folder), dtype=ml_dtypes.bfloat16)
        converted = Path(folder) / "converted"
        measured = {}
        for variant in dict.fromkeys(["convert", *args.variants]):
            measured[variant] = _measure(variant, source, converted)
            say(f"{variant}: {measured[variant]}")
        stored = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    _publish(args.shape, stored, measured, args.out)


def _publish(shape: str, stored: int, measured: Mapping[str, Measured], out: Path | None) -> None:
    config = SHAPES[shape]
    largest = config["vocab_size"] * config["hidden_size"] * 2
    rows = []
    for variant, found in measured.items():
        rows.append(
            (
                variant,
                f"{found.seconds:.1f}",
                f"{stored / found.seconds / 1e9:.2f}",
                f"{found.held / MIB:,.0f}",
                f"{found.peak / MIB:,.0f}",
                *_in_both(found.peak - found.held if found.held else None, largest),
                *_in_both(None if "stacked" in variant else found.beside, largest),
            )
        )
    Table(
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
        above=(this_machine().line, f"Largest tensor: the embedding, {largest / MIB:,.0f} MiB."),
        below=(
            "Each in a process of its own, its files evicted from the page cache first. Peak is anonymous memory "
            "(RssAnon, polled every 2 ms) less what the process had after its imports; “arrays” are those it ended "
            "with, “beside live” the most memory at any time that was in no live JAX array. Stacking writes layers in "
            "place, and such an array does not count as live while it is written to. Mapped files are not in RssAnon, "
            "and so the parameters of transformers are not: it leaves them in the files, mapped.",
        ),
    ).publish(out)


def _in_both(size: int | None, largest: int) -> tuple[str, str]:
    """Bytes in MiB, and as a multiple of the largest tensor's."""
    return ("–", "–") if size is None or size < 0 else (f"{size / MIB:,.0f}", f"{size / largest:.2f}×")


def _measure(variant: str, source: Path, converted: Path) -> Measured:
    for folder in (source, converted):
        for path in folder.rglob("*"):
            if path.is_file():
                _evict(path)
    command = [sys.executable, "-m", "benchmarks.convert", "--run", variant, str(source), str(converted)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found = process.communicate()[0].split()
    if process.returncode:
        raise SystemExit(f"{variant} failed")
    return Measured(float(found[0]), *map(int, found[1:]))


def _work(variant: Callable[[Path, Path], Callable[[], Any]], source: Path, converted: Path) -> None:
    """In the process of its own: imports, works, says what it took."""
    work = variant(source, converted)
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
    arrays = work()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    anonymous, live = np.array(samples).T
    print(seconds, sum(array.nbytes for array in arrays), anonymous.max(), (anonymous - live).max(), flush=True)


def _live() -> int:
    """Bytes of all JAX arrays that there are."""
    import jax

    return sum(array.nbytes for array in jax.live_arrays())


def _convert(source: Path, converted: Path) -> Callable[[], Any]:
    import jaxtrace  # noqa: F401
    from jaxtrace.checkpoints.convert import convert
    from jaxtrace.checkpoints.huggingface import open_checkpoint

    shutil.rmtree(converted, ignore_errors=True)

    def work() -> list[Any]:
        convert(open_checkpoint(str(source)), converted)
        return []

    return work


def _load(place: Callable[[Path, Path], Path], stacked: bool) -> Callable[[Path, Path], Callable[[], Any]]:
    def variant(source: Path, converted: Path) -> Callable[[], Any]:
        import jax
        import orbax.checkpoint.experimental.v1  # noqa: F401

        import jaxtrace

        name = str(place(source, converted))

        def work() -> list[Any]:
            return jax.block_until_ready(jax.tree.leaves(jaxtrace.load(name, dtype="bfloat16", stacked=stacked).params))

        jax.numpy.zeros(1).block_until_ready()
        return work

    return variant


def _load_file(source: Path, _: Path) -> Callable[[], Any]:
    import jax
    from safetensors.numpy import load_file

    def work() -> list[Any]:
        tensors: dict[str, np.ndarray] = {}
        for file in sorted(source.glob("*.safetensors")):
            tensors |= load_file(file)
        return jax.block_until_ready(jax.tree.leaves(jax.device_put(tensors)))

    jax.numpy.zeros(1).block_until_ready()
    return work


def _transformers(source: Path, _: Path) -> Callable[[], Any]:
    import torch
    from transformers import AutoModelForCausalLM

    def work() -> list[Any]:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, local_files_only=True)
        return list(model.parameters())

    return work


VARIANTS: dict[str, Callable[[Path, Path], Callable[[], Any]]] = {
    "convert": _convert,
    "load, Hugging Face": _load(lambda source, _: source, False),
    "load, converted": _load(lambda _, converted: converted, False),
    "load stacked, Hugging Face": _load(lambda source, _: source, True),
    "load stacked, converted": _load(lambda _, converted: converted, True),
    "safetensors load_file, then device_put": _load_file,
    "transformers from_pretrained": _transformers,
}


def _anonymous() -> int:
    """Bytes of this process's memory that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def _evict(path: Path) -> None:
    """Takes a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
