"""Turning a checkpoint into one that any mesh reads fast: Orbax, with the config and the tokenizer beside it."""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ValidationError

from jaxtrace.checkpoints import saved
from jaxtrace.checkpoints.converted import MARKER, PARAMS, STARTED, Conversion, read_conversion
from jaxtrace.checkpoints.huggingface import HUB_FILES, Checkpoint
from jaxtrace.checkpoints.safetensors import INDEX
from jaxtrace.checkpoints.table import leaves
from jaxtrace.errors import CheckpointError, ConfigError, first_line
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families.weights import ParamPath
from jaxtrace.parallel.mesh import make_mesh
from jaxtrace.parallel.sharding import param_shardings

AS_STORED = "as stored"
DTYPES = ("float32", "bfloat16", "float16")

OnProgress = Callable[[int, int], None]  # (bytes written, bytes in all)


class Progress(BaseModel):
    """How far a conversion has come.

    Attributes:
      conversion: what it makes.
      parts: what is written, by its place → the directory that Orbax put it into.
      joining: all parts are written, and Orbax may have begun to make one checkpoint of them.
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
    on_progress: OnProgress = lambda *_: None,
) -> None:
    """Writes a checkpoint as Orbax, with one layer in memory at a time; goes on with one that was interrupted.

    Args:
      checkpoint: to convert.
      out: a new directory, an empty one, or that of the same conversion.
      dtype: of the parameters; None leaves each as it is stored.
      mesh: devices to split a layer over while it is written, such as "data=1,model=8"; None for the default one.
      on_progress: called after every part, with those that were there already.

    Raises:
      CheckpointError: the directory holds something else or cannot be written, or the checkpoint cannot be read.
      ConfigError: the dtype or the mesh cannot be understood.
    """
    if dtype not in (None, *DTYPES):
        raise ConfigError(f"dtype {dtype!r}: weights are not kept in it; choose {', '.join(DTYPES)}")
    with checkpoint.weights() as weights:
        wanted = _wanted(checkpoint, weights, dtype, mesh)
        rounded = any(jnp.promote_types(weights.dtype(path), leaf.dtype) != leaf.dtype for path, leaf in leaves(wanted))
        with _writing(out):
            progress = _begin(out, _conversion(checkpoint, dtype, mesh, rounded))
        if progress is None:
            return
        total = sum(_bytes(leaf) for _, leaf in leaves(wanted))
        written = 0
        for path, part in _parts(wanted):
            name = "/".join(map(str, path))
            if name not in progress.parts:
                _write(out, name, path, weights.read(path, part), progress)
            written += sum(_bytes(leaf) for leaf in jax.tree.leaves(part))
            on_progress(written, total)
    with _writing(out):
        _finish(checkpoint.directory, out, progress)


def _wanted(checkpoint: Checkpoint, weights: Any, dtype: str | None, mesh: str | None) -> Params:
    """Shapes, dtypes and shardings of what is written."""
    shapes = abstract_params(checkpoint.config)
    here = jnp.zeros(()).sharding
    shardings = None if mesh is None else dict(leaves(param_shardings(checkpoint.config, make_mesh(mesh))))

    def leaf(path: ParamPath, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        sharding = here if shardings is None else shardings[path]
        return jax.ShapeDtypeStruct(shape, np.dtype(dtype or weights.dtype(path)), sharding=sharding)

    every = [leaf(path, shape.shape) for path, shape in leaves(shapes)]
    return jax.tree.unflatten(jax.tree.structure(shapes), every)


def _conversion(checkpoint: Checkpoint, dtype: str | None, mesh: str | None, rounded: bool) -> Conversion:
    digests = checkpoint.digests
    if rounded:
        digests += (hashlib.sha256(str(dtype).encode()).hexdigest(),)
    name, fingerprint = checkpoint.name, checkpoint.fingerprint()
    return Conversion(source=name, fingerprint=fingerprint, dtype=dtype or AS_STORED, mesh=mesh, weights=digests)


def _parts(tree: Any, path: ParamPath = ()) -> Iterator[tuple[ParamPath, Any]]:
    """Every block of a list of blocks, and everything else by its name."""
    if isinstance(tree, list):
        yield from (((*path, i), block) for i, block in enumerate(tree))
    elif not path or (isinstance(tree, dict) and any(isinstance(value, list) for value in tree.values())):
        for key, value in tree.items():
            yield from _parts(value, (*path, key))
    else:
        yield path, tree


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # Orbax raises its own, its stores' and the operating system's errors
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise CheckpointError(
            f"{out}: cannot be written ({reason}); mend that and run the same command again, or name another directory"
        ) from None


def _begin(out: Path, conversion: Conversion) -> Progress | None:
    """What is done of a conversion, rid of what was left half done; None where all is."""
    started = out / STARTED
    if out.is_dir() and (out / MARKER).exists():
        _same(out, read_conversion(out, str(out)), conversion)
        return None
    if started.exists():
        progress = _read_progress(started)
        _same(out, progress.conversion, conversion)
    elif out.is_dir() and any(not path.name.startswith(f".{STARTED}") for path in out.iterdir()):
        raise CheckpointError(f"{out}: holds files that are no conversion; name a new directory or an empty one")
    else:
        out.mkdir(parents=True, exist_ok=True)
        progress = Progress(conversion=conversion)
    whole = out / PARAMS
    if progress.joining and not whole.exists():
        progress = Progress(conversion=conversion)
    _record(out, progress)
    for path in out.glob(f"{PARAMS}*"):
        if path.name == f"{PARAMS}{saved.UNFINISHED}":
            for entry in path.iterdir():
                if entry.name not in progress.parts.values():
                    _remove(entry)
        elif path != whole:
            _remove(path)
    return progress


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _same(out: Path, there: Conversion | None, conversion: Conversion) -> None:
    """Refuses a directory that holds another conversion; the source may have moved."""
    assert there is not None
    if there.model_copy(update={"source": conversion.source}) == conversion:
        return
    other = f"not of {conversion.text}" if there.text != conversion.text else "whose files have changed since"
    raise CheckpointError(f"{out}: holds the conversion of {there.text}, {other}; name another directory")


def _read_progress(started: Path) -> Progress:
    try:
        return Progress.model_validate_json(started.read_bytes())
    except ValidationError:
        raise CheckpointError(f"{started}: not what this version of jaxtrace writes; name another directory") from None


def _write(out: Path, name: str, path: ParamPath, tree: Any, progress: Progress) -> None:
    unfinished = out / f"{PARAMS}{saved.UNFINISHED}"
    with _writing(out):
        saved.write_part(out / PARAMS, path, tree)
        (new,) = {entry.name for entry in unfinished.iterdir()} - set(progress.parts.values())
        progress.parts[name] = new
        _record(out, progress)


def _finish(source: Path, out: Path, progress: Progress) -> None:
    """Makes one checkpoint of the parts, and says last that all is there."""
    for pattern in HUB_FILES:
        for file in source.glob(pattern):
            if file.suffix != ".safetensors" and file.name not in (INDEX, MARKER, STARTED):
                shutil.copyfile(file, out / file.name)
    progress.joining = True
    if not (out / PARAMS).exists():
        _record(out, progress)
        saved.finish(out / PARAMS)
    _replace(out / MARKER, progress.conversion)
    (out / STARTED).unlink()


def _record(out: Path, progress: Progress) -> None:
    _replace(out / STARTED, progress)


def _replace(path: Path, content: BaseModel) -> None:
    """Writes a whole file or none."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
