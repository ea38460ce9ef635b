"""Parameters as one Orbax checkpoint: written part by part, read into any sharding.

It is a tree of the parameters' own names, lists as dictionaries of numbers, which `orbax.checkpoint` loads by itself.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from jaxtrace.checkpoints.table import leaves, refuse_misfit
from jaxtrace.errors import CheckpointError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families.weights import ParamPath
from jaxtrace.parallel.sharding import logical_axes

CHUNK = 4 * 2**20  # bytes; what is read at once, so that a small part of a tensor costs little
UNFINISHED = ".partial_save"  # what Orbax adds to the name of a checkpoint that it still writes


class Saved:
    """The parameters in a finished checkpoint.

    Args:
      config: of the decoder.
      directory: of the Orbax checkpoint.
      source: its name, for errors.

    Raises:
      CheckpointError: they cannot be read; or some are missing, unknown, of a wrong shape; all problems in one line.
    """

    def __init__(self, config: DecoderConfig, directory: Path, source: str):
        self._directory, self._source = _absolute(directory), source
        try:
            self._metadata: Any = ocp.metadata(self._directory).metadata
            there = {_name(path): tuple(leaf.shape) for path, leaf in leaves(self._metadata)}
        except Exception:  # Orbax raises whatever its parsers and stores raise
            raise self._unreadable() from None
        if not there:  # what Orbax makes of a store that it cannot open
            raise self._unreadable()
        wanted = {_name(path): leaf.shape for path, leaf in leaves(abstract_params(config))}
        problems = [f"missing: {name}" for name in wanted if name not in there]
        problems += [f"unknown: {name}" for name in there if name not in wanted]
        problems += [
            f"{name} has shape {list(there[name])}, not {list(shape)}"
            for name, shape in wanted.items()
            if there.get(name, shape) != shape
        ]
        refuse_misfit(problems, source)

    def dtype(self, path: ParamPath) -> np.dtype:
        """In which a parameter is stored."""
        return np.dtype(functools.reduce(lambda tree, key: tree[str(key)], path, self._metadata).dtype)

    def read(self, path: ParamPath, wanted: Any) -> Any:
        """The parameters at a place, each device's part read by itself and cast on the host.

        Args:
          path: into the parameters.
          wanted: the tree there: shapes, dtypes and shardings.

        Raises:
          CheckpointError: they cannot be read.
        """
        gc.collect()  # Orbax leaves what it read in cycles of references, whole layers that nobody wants any more
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        context.memory.read_concurrent_bytes = 1 + max(4 * leaf.size for leaf in jax.tree.leaves(wanted))
        try:
            with context:
                found = ocp.load(self._directory, _nested(path, _keyed(wanted)))
        except Exception:  # as above
            raise self._unreadable(f" at {_name(path)}" if path else "") from None
        return _like(wanted, functools.reduce(lambda tree, key: tree[str(key)], path, found))

    def _unreadable(self, at: str = "") -> CheckpointError:
        return CheckpointError(
            f"{self._source}: the parameters{at} cannot be read; convert it again, into a new directory"
        )


def write_part(directory: Path, path: ParamPath, tree: Any) -> None:
    """Adds the parameters at one place to a checkpoint that `finish` makes whole; nothing may be added twice."""
    context = ocp.Context()
    context.array.saving.use_compression = False  # random bits hardly shrink, and packing takes longer than writing
    context.array.saving.scoped_storage_options_creator = _storage

    def save() -> None:
        with context:
            ocp.partial.save(_absolute(directory), _nested(path, _keyed(tree)))

    _to_the_end(save)


def finish(directory: Path) -> None:
    """Joins the parts."""
    _to_the_end(lambda: ocp.partial.finalize(_absolute(directory)))


def _to_the_end(work: Callable[[], None]) -> None:
    """Runs something that Ctrl-C does not stop half-way, but right after; Orbax's own threads cannot be stopped."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def _storage(key: tuple[Any, ...], value: jax.Array) -> Any:
    """Chunks that a mesh can share out: one head each, or a few rows or columns."""
    axes = logical_axes([part.key for part in key], value.ndim)
    heads = tuple(i for i, axis in enumerate(axes) if axis in ("heads", "kv_heads") and "head_dim" in axes)
    return ocp.options.ArrayOptions.Saving.StorageOptions(chunk_byte_size=CHUNK, shard_axes=heads or None)


def _absolute(directory: Path) -> str:
    """Orbax takes no other paths."""
    return str(directory.absolute())


def _name(path: ParamPath) -> str:
    return ".".join(map(str, path))


def _nested(path: ParamPath, tree: Any) -> Any:
    return functools.reduce(lambda inner, key: {str(key): inner}, reversed(path), tree)


def _keyed(tree: Any) -> Any:
    """Dictionaries of numbers for lists."""
    if isinstance(tree, list):
        return {str(i): _keyed(value) for i, value in enumerate(tree)}
    return {key: _keyed(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _like(wanted: Any, found: Any) -> Any:
    """Lists again, where they are wanted."""
    if isinstance(wanted, list):
        return [_like(value, found[str(i)]) for i, value in enumerate(wanted)]
    return {key: _like(value, found[key]) for key, value in wanted.items()} if isinstance(wanted, dict) else found
