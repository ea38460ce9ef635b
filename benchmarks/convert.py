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
    """

    seconds: float
    held: int
    peak: int


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
        beside = found.peak - found.held
        rows.append(
            (
                variant,
                f"{found.seconds:.1f}",
                f"{stored / found.seconds / 1e9:.2f}",
                f"{found.held / MIB:,.0f}",
                f"{found.peak / MIB:,.0f}",
                f"{beside / MIB:,.0f}" if beside > 0 else "–",
                f"{beside / largest:.2f}×" if beside > 0 else "–",
            )
        )
    Table(
        title=f"Converting and loading, {shape}, bfloat16: {stored / 1e9:.1f} GB in one file per layer",
        columns=("what", "s", "GB/s", "arrays, MiB", "peak, MiB", "beside the arrays, MiB", "of the largest tensor"),
        rows=rows,
        above=(this_machine().line, f"Largest tensor: the embedding, {largest / MIB:,.0f} MiB."),
        below=(
            "Each in a process of its own, its files evicted from the page cache first. Peak is anonymous memory "
            "(RssAnon, polled from outside every 2 ms) less what the process had after its imports. Mapped files are "
            "not in it, and so the parameters of transformers are not: it leaves them in the files, mapped. Converting "
            "ends with no arrays; on its way it holds a tensor as an array and once more for Orbax to write.",
        ),
    ).publish(out)


def _measure(variant: str, source: Path, converted: Path) -> Measured:
    for folder in (source, converted):
        for path in folder.rglob("*"):
            if path.is_file():
                _evict(path)
    command = [sys.executable, "-m", "benchmarks.convert", "--run", variant, str(source), str(converted)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    process.stdout.readline()  # imports are done
    before = peak = _anonymous(process.pid)
    os.set_blocking(process.stdout.fileno(), False)
    process.stdin.write("go\n")
    process.stdin.flush()
    line = ""
    while not line:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(POLL)
        line = process.stdout.readline()
        if process.poll() is not None and not line:
            raise SystemExit(f"{variant} failed")
    process.stdin.write("end\n")
    process.stdin.close()
    process.wait()
    seconds, held = line.split()
    return Measured(float(seconds), int(held), peak - before)


def _work(variant: Callable[[Path, Path], Callable[[], Any]], source: Path, converted: Path) -> None:
    """In the process of its own: imports, waits for the word, works, says what it took, waits again."""
    work = variant(source, converted)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    arrays = work()
    seconds = time.perf_counter() - began
    print(seconds, sum(array.nbytes for array in arrays), flush=True)
    sys.stdin.readline()


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


def _anonymous(process: int) -> int:
    """Bytes of a process's memory that no file backs."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
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
