"""Reads safetensors files, single or sharded, one part of a tensor at a time."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxtrace.documents import MAX_JSON, decode_json, read_bytes, read_json
from jaxtrace.errors import CheckpointError, few
from jaxtrace.files import open_regular, path_exists
from jaxtrace.memory import format_bytes, memory_errors

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
# Dtypes of the weights that are read, by safetensors' names.
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
FLOAT8 = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E8M0": ml_dtypes.float8_e8m0fnu}  # safetensors gives none to NumPy
ADAPTERS = ("adapter_*", "adapters.*", "*lora*.safetensors")  # peft's files, MLX's, and others'
MERGE = (
    "merge it into the model with peft (AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload()"
    ".save_pretrained(NEW)), copy the tokenizer's files to NEW, and give NEW"
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def shards(directory: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint: the single file, or else the shards of the index.

    transformers has this order too. `save_pretrained` over a sharded checkpoint leaves the old index and shards beside
    the new single file.

    Raises:
      CheckpointError: there is none (other formats are named), the index is invalid, or a shard is missing.
    """
    if (directory / SINGLE).exists():
        return [directory / SINGLE]
    if not (directory / INDEX).exists():
        raise adapter_error(directory) or _no_weights(directory)
    names = shard_names(directory)
    for name in names:
        if not path_exists(directory / name):
            raise CheckpointError(f"{directory}: shard {name} of the index is missing; download it again")
    return [directory / name for name in names]


def shard_names(directory: Path) -> list[str]:
    """Return the names of the shards that the index lists, which may be missing; raises CheckpointError."""
    index = directory / INDEX
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if name in ("", "..") or Path(name).name != name:
            raise CheckpointError(f"{index}: names a shard outside the directory: {name!r}; download it again")
    return names


def adapter_error(directory: Path) -> CheckpointError | None:
    """Return the error of a directory that holds an adapter without its model; None for another directory."""
    if not (adapters := sorted(file for pattern in ADAPTERS for file in directory.glob(pattern))):
        return None
    config = directory / ADAPTER
    settings = read_json(config, CheckpointError, "download it again", finite=False) if config in adapters else {}
    base = settings.get("base_model_name_or_path") or settings.get("model") or "an unnamed model"
    return CheckpointError(
        f"{directory}: is a LoRA or other adapter of {base} ({adapters[0].name}), without the model; {MERGE}"
    )


def _no_weights(directory: Path) -> CheckpointError:
    for pattern in PICKLES:
        if pickles := sorted(directory.glob(pattern)):
            return CheckpointError(
                f"{pickles[0]}: pickle files can run code and are never read; "
                "save the checkpoint as safetensors (save_pretrained does) and try again"
            )
    if others := sorted(directory.glob("*.safetensors")):
        return CheckpointError(
            f"{others[0]}: is neither {SINGLE} nor a shard of {INDEX}; save the checkpoint with save_pretrained"
        )
    return CheckpointError(
        f"{directory}: holds no {SINGLE} and no {INDEX}; give a Hugging Face checkpoint directory or a GGUF file"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Return the shard of each tensor."""
    content = read_bytes(index, MAX_JSON, CheckpointError, "download it again")
    try:
        shard_of = decode_json(content)["weight_map"]
        if not shard_of or not all(isinstance(name, str) for name in shard_of.values()):
            raise ValueError
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index}: not a valid safetensors index; download it again") from None
    return shard_of


def _memory_line(path: Path, asked: str) -> str:
    return (
        f"{path}: out of memory: {format_bytes(path.stat().st_size)} cannot be mapped{asked}; end other programs, "
        "raise the limit on memory (ulimit -v), or use a machine with more memory"
    )


class TensorReader(Protocol):
    """Tensors of a checkpoint by name; see `Tensors`, which reads safetensors files."""

    def __iter__(self) -> Iterator[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> str: ...

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray: ...


class Tensors:
    """Tensors of a checkpoint by name, read on demand from memory-mapped files.

    An index decides which tensors there are: others in its shards are ignored.

    Raises:
      OutOfMemoryError: a file cannot be mapped.
      CheckpointError: a file cannot be read, or a tensor is not in the shard that the index names.
    """

    def __init__(self, directory: Path) -> None:
        self._stack = ExitStack()
        self._files = {}
        self._paths: dict[str, Path] = {}
        self._first_bytes: dict[str, int] = {}
        paths = shards(directory)
        shard_of = None if paths == [directory / SINGLE] else _weight_map(directory / INDEX)
        for path in paths:
            try:
                open_regular(path).close()  # safe_open would wait for the writer of a named pipe
                with memory_errors(functools.partial(_memory_line, path)):
                    file = self._stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: not a readable safetensors file ({error}); download it again") from None
            for name in file.keys():  # noqa: SIM118
                if shard_of is None or shard_of.get(name) == path.name:
                    self._files[name], self._paths[name] = file, path
        if absent := {name: shard for name, shard in (shard_of or {}).items() if name not in self._files}:
            problems = few([f"not in {shard}: {name}" for name, shard in absent.items()], "; ")
            raise CheckpointError(f"{directory / INDEX}: does not fit the shards ({problems}); download it again")

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
        if (kind := FLOAT8.get(self.dtype(name))) is None:
            return self._files[name].get_slice(name)[index]
        path = self._paths[name]
        if name not in self._first_bytes:
            self._first_bytes |= _first_bytes(path)
        with memory_errors(functools.partial(_memory_line, path)):
            whole = np.memmap(path, np.uint8, "r", self._first_bytes[name], self.shape(name))
            return np.array(whole[index]).view(kind)


def _first_bytes(path: Path) -> dict[str, int]:
    """Return the position of each tensor's first byte in a safetensors file, whose header `safe_open` has checked."""
    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    return {name: 8 + size + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}
