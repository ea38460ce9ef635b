"""Command-line options, loaded models and probe groups that several benchmarks share."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jaxtrace as jt
from benchmarks.shapes import SHAPES, checkpoint, decoder_config
from jaxtrace.checkpoints.random import RandomCheckpoint

NO_LENS = ("output", "attention", "dispersion", "hidden")  # probe groups


def benchmark_parser(doc: str | None, *, markdown_only: bool = False) -> argparse.ArgumentParser:
    """Return a parser with --out, described by the first line of a docstring."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help=f"also write the table here: .md{'' if markdown_only else ', or .csv'}"
    )
    return parser


def add_model(parser: argparse.ArgumentParser, shape: str = "15m") -> None:
    """Add --shape and --workdir."""
    parser.add_argument("--shape", choices=list(SHAPES), default=shape, help="shape of the model")
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--workdir", type=Path, default=temporary, help="directory that keeps random checkpoints")


def add_variants(parser: argparse.ArgumentParser, variants: Iterable[str]) -> None:
    """Add --variants and --repeats."""
    parser.add_argument("--variants", nargs="+", choices=list(variants), default=list(variants))
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each variant")


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add --batch."""
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="rows decoded at once")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add --dtype."""
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="dtype of the weights")


def load_both(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return (jaxtrace's model, transformers' model) of one checkpoint; None for a side without a requested variant.

    Without transformers there is no checkpoint: random weights are drawn on the device.

    Raises:
      SystemExit: transformers is to run in another dtype than float32.
    """
    if not any(name.startswith("transformers") for name in args.variants):
        random = RandomCheckpoint(args.shape, decoder_config(args.shape), seed=0)
        return jt.Model.from_checkpoint(random, dtype=args.dtype), None
    from benchmarks import torch_plain

    if args.dtype != "float32":
        raise SystemExit(f"--dtype: is {args.dtype}, but transformers runs in float32; drop its --variants")
    directory = checkpoint(args.shape, args.workdir)
    ours = jt.load(str(directory)) if any(name.startswith("jaxtrace") for name in args.variants) else None
    return ours, torch_plain.load(directory)


def selected(calls: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return the calls of the requested variants, in the order of the command line."""
    return {name: calls[name] for name in args.variants}
