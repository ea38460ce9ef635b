"""Reads safetensors files, single or sharded, one part of a tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxtrace.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def shards(directory: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint.

    Raises:
      CheckpointError: there is none (a pickle is refused by name), the index is invalid, or a shard is missing.
    """
    index = directory / INDEX
    if index.exists():
        names = sorted(set(_weight_map(index).values()))
        for name in names:
            if name in ("", "..") or Path(name).name != name:
                raise CheckpointError(f"{index}: names a shard outside the directory: {name!r}; download it again")
            if not (directory / name).exists():
                raise CheckpointError(f"{directory}: shard {name} of the index is missing; download it again")
        return [directory / name for name in names]
    if (directory / SINGLE).exists():
        return [directory / SINGLE]
    for pattern in PICKLES:
        if pickles := sorted(directory.glob(pattern)):
            raise CheckpointError(
                f"{pickles[0]}: pickle files can run code and are never read; "
                "save the checkpoint as safetensors (save_pretrained does) and try again"
            )
    raise CheckpointError(f"{directory}: holds no {SINGLE} and no {INDEX}; give a Hugging Face checkpoint directory")


def _weight_map(index: Path) -> dict[str, str]:
    """Return the shard of each tensor."""
    try:
        shard_of = json.loads(index.read_text())["weight_map"]
        if not shard_of or not all(isinstance(name, str) for name in shard_of.values()):
            raise ValueError
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index}: not a valid safetensors index; download it again") from None
    return shard_of


class Tensors:
    """Tensors of a checkpoint by name, read on demand from memory-mapped files.

    Raises:
      CheckpointError: a file cannot be read, two files hold the same tensor, or the index does not fit the files.
    """

    def __init__(self, directory: Path) -> None:
        self._stack = ExitStack()
        self._files = {}
        file_of: dict[str, str] = {}  # name of a tensor → name of its file
        for path in shards(directory):
            try:
                file = self._stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: not a readable safetensors file ({error}); download it again") from None
            for name in file.keys():  # noqa: SIM118
                if name in self._files:
                    raise CheckpointError(f"{path}: weight {name} is stored twice; download it again")
                self._files[name] = file
                file_of[name] = path.name
        if (index := directory / INDEX).exists():
            shard_of = _weight_map(index)
            problems = [f"not in {file}: {name}" for name, file in shard_of.items() if file_of.get(name) != file]
            problems += [
                f"in {file}, not in the index: {name}" for name, file in file_of.items() if name not in shard_of
            ]
            if problems:
                raise CheckpointError(f"{index}: does not fit the shards ({'; '.join(problems)}); download it again")

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Return the stored dtype under safetensors' name ("F32", "BF16")."""
        return self._files[name].get_slice(name).get_dtype()

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Return a part of a tensor, copied out of the mapped file."""
        return self._files[name].get_slice(name)[index]
