"""Parameters as one Orbax checkpoint: written part by part, read into any sharding.

Its tree has the parameters' own names, with lists as dictionaries of numbers, so `orbax.checkpoint` loads it by itself.
"""

from __future__ import annotations

import functools
import gc
import io
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, suppress
from pathlib import Path
from types import CoroutineType
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import tensorstore

from jaxtrace.checkpoints.table import Problems, leaves
from jaxtrace.errors import CheckpointError
from jaxtrace.files import open_regular
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families.weights import ParamPath
from jaxtrace.parallel.sharding import logical_axes

# Orbax logs each error with its traceback, or as a warning, and raises it too.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)

ITEM = "state"  # directory that Orbax gives the arrays of a checkpoint
CHUNK = 4 * 2**20  # bytes per read; small, so that a small part of a tensor costs little
Result = TypeVar("Result")

UNFINISHED = ".partial_save"  # suffix that Orbax gives an unfinished checkpoint


class OrbaxWeights:
    """Parameters in a finished Orbax checkpoint.

    Args:
      config: config of the decoder.
      directory: directory of the Orbax checkpoint.
      source: name of the checkpoint, for error messages.

    Raises:
      CheckpointError: the checkpoint is unreadable, or parameters are missing, unknown or of a wrong shape; the message
        lists them in one line, at most five.
    """

    def __init__(self, config: DecoderConfig, directory: Path, source: str) -> None:
        self._directory, self._source = _absolute(directory), source
        try:
            for path in directory.rglob("*"):
                if not path.is_dir():
                    open_regular(path).close()  # Orbax would wait for the writer of a named pipe
            _check_index(directory)
        except (OSError, ValueError):
            raise self._unreadable() from None
        self._metadata: Any = _quietly(lambda: ocp.metadata(self._directory).metadata)
        stored = {_name(path): tuple(leaf.shape) for path, leaf in leaves(self._metadata or {})}
        if not stored:  # Orbax returns empty metadata for a store that it cannot open
            raise self._unreadable()
        expected = {_name(path): leaf.shape for path, leaf in leaves(abstract_params(config))}
        Problems(
            missing=[name for name in expected if name not in stored],
            unknown=[name for name in stored if name not in expected],
            wrong=[
                f"{name} has shape {list(stored[name])}, not {list(shape)}"
                for name, shape in expected.items()
                if stored.get(name, shape) != shape
            ],
        ).check(source)

    def dtype(self, path: ParamPath) -> np.dtype:
        """Return the stored dtype of a parameter."""
        return np.dtype(functools.reduce(lambda tree, key: tree[str(key)], path, self._metadata).dtype)

    def read(self, path: ParamPath, target: Any) -> Any:
        """Read a subtree of the parameters; each device's part is read separately and cast on the host.

        Args:
          path: path of the subtree.
          target: shapes, dtypes and shardings of the subtree.

        Raises:
          CheckpointError: the parameters cannot be read.
        """
        gc.collect()  # Orbax keeps the layers that it read alive in reference cycles
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        context.memory.read_concurrent_bytes = 1 + max(4 * leaf.size for leaf in jax.tree.leaves(target))
        with context:
            loaded: Any = _quietly(lambda: ocp.load(self._directory, _nested(path, _lists_to_dicts(target))))
        if loaded is None:
            raise self._unreadable(f" at {_name(path)}" if path else "")
        return _dicts_to_lists(target, functools.reduce(lambda tree, key: tree[str(key)], path, loaded))

    def _unreadable(self, at: str = "") -> CheckpointError:
        return CheckpointError(
            f"{self._source}: the parameters{at} cannot be read; convert it again, into a new directory"
        )


def write_part(directory: Path, path: ParamPath, tree: Any) -> None:
    """Add a subtree of the parameters to a checkpoint that `finish` completes; each path may be added once."""
    context = ocp.Context()
    context.array.saving.use_compression = False  # random bits hardly shrink, and packing takes longer than writing
    context.array.saving.scoped_storage_options_creator = _storage

    def save() -> None:
        with context:
            ocp.partial.save(_absolute(directory), _nested(path, _lists_to_dicts(tree)))

    _uninterrupted(save)


def finish(directory: Path) -> None:
    """Join the parts into one checkpoint."""
    _uninterrupted(lambda: ocp.partial.finalize(_absolute(directory)))


def _check_index(directory: Path) -> None:
    """Raise ValueError if the index of the stored arrays is damaged; Orbax would print each array's error."""
    store = {"driver": "file", "path": f"{_absolute(directory / ITEM)}/"}
    tensorstore.KvStore.open({"driver": "ocdbt", "base": store}).result().list().result()


def _quietly(work: Callable[[], Result]) -> Result | None:
    """Return what a function of Orbax returns, or None after an error, of which nothing is printed.

    Orbax's other tasks and their clean-up would print hundreds of lines.
    """
    printed = io.StringIO()
    with redirect_stderr(printed):
        try:
            result = work()
        except Exception:  # Orbax raises whatever its parsers and stores raise
            result = None
        if result is None:
            gc.collect()
            for task in gc.get_objects():
                if type(task) is CoroutineType and "orbax" in task.cr_code.co_filename:
                    with suppress(Exception):
                        task.close()
            return None
    sys.stderr.write(printed.getvalue())
    return result


def _uninterrupted(work: Callable[[], None]) -> None:
    """Delay Ctrl-C until the work is done, because Orbax's own threads cannot be stopped."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def _storage(key: tuple[Any, ...], value: jax.Array) -> Any:
    """Choose chunks that a mesh can divide: one head each, or a few rows or columns."""
    axes = logical_axes([part.key for part in key], value.ndim)
    heads = tuple(i for i, axis in enumerate(axes) if axis in ("heads", "kv_heads") and "head_dim" in axes)
    return ocp.options.ArrayOptions.Saving.StorageOptions(chunk_byte_size=CHUNK, shard_axes=heads or None)


def _absolute(directory: Path) -> str:
    """Return the absolute path, the only kind that Orbax accepts."""
    return str(directory.absolute())


def _name(path: ParamPath) -> str:
    return ".".join(map(str, path))


def _nested(path: ParamPath, tree: Any) -> Any:
    return functools.reduce(lambda inner, key: {str(key): inner}, reversed(path), tree)


def _lists_to_dicts(tree: Any) -> Any:
    if isinstance(tree, list):
        return {str(i): _lists_to_dicts(value) for i, value in enumerate(tree)}
    return {key: _lists_to_dicts(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _dicts_to_lists(like: Any, tree: Any) -> Any:
    """Undo `_lists_to_dicts`; `like` tells which dictionaries were lists."""
    if isinstance(like, list):
        return [_dicts_to_lists(value, tree[str(i)]) for i, value in enumerate(like)]
    return {key: _dicts_to_lists(value, tree[key]) for key, value in like.items()} if isinstance(like, dict) else tree
