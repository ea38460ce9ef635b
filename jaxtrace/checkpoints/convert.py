"""Converts a checkpoint to Orbax, which any mesh reads fast, with the config and the tokenizer beside it."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from pydantic import BaseModel

from jaxtrace import interrupts
from jaxtrace.checkpoints import orbax
from jaxtrace.checkpoints.assemble import PART
from jaxtrace.checkpoints.converted import FOREIGN, MARKER, PARAMS, STARTED, Conversion, read_conversion
from jaxtrace.checkpoints.huggingface import Checkpoint
from jaxtrace.checkpoints.sources import COPIED, CheckpointFiles
from jaxtrace.checkpoints.table import leaves
from jaxtrace.documents import read_model
from jaxtrace.errors import CheckpointError, ConfigError, JaxtraceError, reason_of
from jaxtrace.files import LOCK, check_writable, write_atomically
from jaxtrace.lock import WriteLock
from jaxtrace.memory import format_bytes, is_out_of_memory, memory_errors
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families.weights import ParamPath
from jaxtrace.parallel.mesh import make_mesh
from jaxtrace.parallel.sharding import param_shardings
from jaxtrace.settings.run import DTYPES

AS_STORED = "as stored"

REPLACE = "replace it with --overwrite, or name another directory"

OnProgress = Callable[[int, int], None]  # (bytes written, bytes to write in all)


class ConversionProgress(BaseModel):
    """Progress of an unfinished conversion.

    Attributes:
      conversion: the conversion.
      parts: directory that Orbax wrote each finished part into, by the part's path.
      joining: True once all parts are written and Orbax may have begun to join them.
    """

    conversion: Conversion
    parts: dict[str, str] = {}
    joining: bool = False


def convert(
    checkpoint: Checkpoint,
    out: Path,
    *,
    dtype: str | None = None,
    mesh: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: OnProgress = lambda *_: None,
) -> None:
    """Write a checkpoint as Orbax, with at most one layer or parameter in memory; resume an interrupted conversion.

    Args:
      checkpoint: checkpoint to convert.
      out: directory to write: new, empty, or with the same conversion, unfinished.
      dtype: dtype of the parameters; None keeps each parameter's stored dtype.
      mesh: devices to split a layer over while it is written, such as "data=1,model=8"; None for the default device.
      overwrite: True deletes an earlier conversion in the directory and starts again.
      resume: True accepts the same conversion, finished.
      on_progress: callback after every part, including parts that were written before.

    Raises:
      CheckpointError: the directory holds a finished or another conversion or other files, or cannot be written, or the
        checkpoint cannot be read.
      StoreError: another program is writing the directory.
      ConfigError: the dtype or the mesh is invalid.
    """
    if dtype not in (None, *DTYPES):
        raise ConfigError(f"dtype {dtype!r}: is not a dtype of weights; choose {', '.join(DTYPES)}")
    checkpoint.log_notes()
    with (
        WriteLock(out),
        interrupts.checked(),
        checkpoint.weights() as weights,
        memory_errors(lambda asked: _memory_line(checkpoint, asked)),
    ):
        target = _target(checkpoint, weights, dtype, mesh)
        rounded = any(jnp.promote_types(weights.dtype(path), leaf.dtype) != leaf.dtype for path, leaf in leaves(target))
        conversion = _conversion(checkpoint, dtype, mesh, rounded)
        with _write_errors(out):
            if overwrite and out.exists() and out.samefile(checkpoint.directory):
                raise CheckpointError(f"{out}: is the checkpoint to convert; name another directory")
            progress = _begin(out, conversion, overwrite)
        if progress is None:
            if not resume:
                raise CheckpointError(f"{out}: holds this conversion, finished; accept it with --resume, {REPLACE}")
            return
        largest = max(PART, *map(_tree_bytes, jax.tree.leaves(target)))
        parts = [("/".join(map(str, path)), path, part, _tree_bytes(part)) for path, part in _parts(target, largest)]
        written, total = 0, sum(size for *_, size in parts)
        with _write_errors(out):
            check_writable(out, sum(size for name, *_, size in parts if name not in progress.parts))
        for name, path, part, size in parts:
            if name not in progress.parts:
                _write_part(out, name, path, weights.read(path, part), progress)
            written += size
            on_progress(written, total)
            interrupts.check()
        with _write_errors(out):
            _finish(checkpoint.files, out, progress)


def _memory_line(checkpoint: Checkpoint, asked: str) -> str:
    part = max(_tree_bytes(leaf) for _, leaf in leaves(abstract_params(checkpoint.config)))
    return (
        f"{checkpoint.name}: out of memory: a parameter takes up to {format_bytes(part)} in float32 while it is "
        f"converted{asked}; split it over more devices (--mesh), or use a machine with more memory"
    )


def _target(checkpoint: Checkpoint, weights: Any, dtype: str | None, mesh: str | None) -> Params:
    """Return the shapes, dtypes and shardings of the parameters to write."""
    shapes = abstract_params(checkpoint.config, dtype=dtype or jnp.float32)
    default = jnp.zeros(()).sharding
    shardings = None if mesh is None else dict(leaves(param_shardings(checkpoint.config, make_mesh(mesh))))

    def target(path: ParamPath, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = default if shardings is None else shardings[path]
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if dtype else weights.dtype(path), sharding=sharding)

    targets = [target(path, leaf) for path, leaf in leaves(shapes)]
    return jax.tree.unflatten(jax.tree.structure(shapes), targets)


def _conversion(checkpoint: Checkpoint, dtype: str | None, mesh: str | None, rounded: bool) -> Conversion:
    digests = checkpoint.digests
    if rounded:
        digests += (hashlib.sha256(str(dtype).encode()).hexdigest(),)
    name, fingerprint = checkpoint.name, checkpoint.fingerprint()
    return Conversion(
        source=name,
        fingerprint=fingerprint,
        dtype=dtype or AS_STORED,
        mesh=mesh,
        weights=digests,
        revision=checkpoint.revision,
        revision_name=checkpoint.revision_name,
    )


def _parts(tree: Any, largest: int, path: ParamPath = ()) -> Iterator[tuple[ParamPath, Any]]:
    """Yield the path and subtree of every block, and of every entry outside the blocks.

    A subtree of more than `largest` bytes, such as a block of many experts, is split: Orbax copies what it writes.
    """
    if path and not _has_list(tree) and _tree_bytes(tree) <= largest:
        yield path, tree
        return
    for key, value in enumerate(tree) if isinstance(tree, list) else tree.items():
        yield from _parts(value, largest, (*path, key))


def _has_list(tree: Any) -> bool:
    return isinstance(tree, list) or (isinstance(tree, dict) and any(map(_has_list, tree.values())))


def _tree_bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def _write_errors(out: Path) -> Iterator[None]:
    """Turn any error of writing into a CheckpointError."""
    try:
        yield
    except JaxtraceError:
        raise
    except Exception as error:  # Orbax raises its own, its stores' and the operating system's errors
        code = re.search(r"os_error_code='(\d+)'", str(error))  # a full disk is RESOURCE_EXHAUSTED too
        if code is None and is_out_of_memory(error):
            raise
        reason = os.strerror(int(code[1])) if code else reason_of(error)
        raise CheckpointError(
            f"{out}: cannot be written ({reason}); fix that and run the same command again, or name another directory"
        ) from None


def _begin(out: Path, conversion: Conversion, overwrite: bool) -> ConversionProgress | None:
    """Return the progress of a conversion after deleting partial files, or all to overwrite; None if finished."""
    started, marker = out / STARTED, out / MARKER
    replaced = overwrite and (marker.exists() or started.exists())
    if replaced:
        progress = ConversionProgress(conversion=conversion)
    elif marker.exists():
        _refuse_other(out, read_conversion(out, str(out)), conversion)
        return None
    elif started.exists():
        progress = _read_progress(started)
        _refuse_other(out, progress.conversion, conversion)
    elif out.is_dir() and any(not path.name.startswith((f".{STARTED}", LOCK)) for path in out.iterdir()):
        raise CheckpointError(f"{out}: holds files that are no conversion; name a new directory or an empty one")
    else:
        out.mkdir(parents=True, exist_ok=True)
        progress = ConversionProgress(conversion=conversion)
    params = out / PARAMS
    if progress.joining and not params.exists():
        progress = ConversionProgress(conversion=conversion)
    _write_json(started, progress)
    if replaced:
        for pattern in (MARKER, *COPIED):
            for path in out.glob(pattern):
                if path != started:
                    _remove(path)
    for path in out.glob(f"{PARAMS}*"):
        if path.name == f"{PARAMS}{orbax.UNFINISHED}":
            for entry in path.iterdir():
                if entry.name not in progress.parts.values():
                    _remove(entry)
        elif path != params or not progress.joining:
            _remove(path)
    return progress


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _refuse_other(out: Path, stored: Conversion | None, conversion: Conversion) -> None:
    """Raise CheckpointError if the directory holds another conversion; the source may have moved."""
    assert stored is not None
    place = conversion.model_dump(include={"source", "revision", "revision_name"})
    if stored.model_copy(update=place) == conversion:
        return
    difference = f"not of {conversion.text}" if stored.text != conversion.text else "whose files have changed since"
    raise CheckpointError(f"{out}: holds the conversion of {stored.text}, {difference}; {REPLACE}")


def _read_progress(started: Path) -> ConversionProgress:
    return read_model(ConversionProgress, started, CheckpointError, FOREIGN, "name another directory")


def _write_part(out: Path, name: str, path: ParamPath, tree: Any, progress: ConversionProgress) -> None:
    unfinished = out / f"{PARAMS}{orbax.UNFINISHED}"
    with _write_errors(out):
        orbax.write_part(out / PARAMS, path, tree)
        (new,) = {entry.name for entry in unfinished.iterdir()} - set(progress.parts.values())
        progress.parts[name] = new
        _write_json(out / STARTED, progress)


def _finish(source: CheckpointFiles, out: Path, progress: ConversionProgress) -> None:
    """Join the parts into one checkpoint, and write the marker last."""
    for name, content in source.texts():
        write_atomically(out / name, content)
    progress.joining = True
    if not (out / PARAMS).exists():
        _write_json(out / STARTED, progress)
        orbax.finish(out / PARAMS)
    _write_json(out / MARKER, progress.conversion)
    (out / STARTED).unlink()


def _write_json(path: Path, content: BaseModel) -> None:
    write_atomically(path, content.model_dump_json(indent=2) + "\n")
