"""Functions in C++ for XLA's CPU backend, compiled with the machine's compiler when they are first used."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxtyping import Array, Float, Int

from .linear import is_partitioned
from .moments import Alphas

SOURCE = Path(__file__).with_name("logit_sums.cc")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-w")
LONGEST = 120  # seconds of a compilation
_LOCK = threading.Lock()


def logit_sums(
    logits: Float[Array, "P V"], groups: int, rows: int, orders: Alphas
) -> tuple[Float[Array, "5 G R"], Int[Array, "G R"], Float[Array, "A2 R"]]:
    """Return sums over the first `groups` × `rows` rows, as `UnembedSums` defines them, in one pass over the logits.

    The last group is the output. Needs `refuses()` to be None.

    Returns:
      m, l, a, b and `cross` of every row; the index of its largest logit; and, of the output rows, the sum of each
      order, Σ u, and the second largest logit.
    """
    results = (
        jax.ShapeDtypeStruct((5, groups, rows), jnp.float32),
        jax.ShapeDtypeStruct((groups, rows), jnp.int32),
        jax.ShapeDtypeStruct((len(orders) + 2, rows), jnp.float32),
    )
    call = jax.ffi.ffi_call(_target(), results, vmap_method="sequential")
    sums, top1, of_output = call(logits, groups=np.int64(groups), orders=np.array(orders, np.float32))
    return sums, top1, of_output


def refuses(*_: Any, **__: Any) -> str | None:
    """Return why the functions cannot serve a call, or None; the first call compiles them."""
    if is_partitioned():
        return "XLA's partitioner would gather its logits"
    with _LOCK:
        return _load()


def _target() -> str:
    return f"jaxtrace_logit_sums_{_key()[:16]}"


@functools.cache
def _load() -> str | None:
    """Register the function, compiled now unless the compile cache holds it; return why it is unavailable, or None."""
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None:
        return "needs a C++ compiler"
    config: Any = jax.config
    cache = Path(config.jax_compilation_cache_dir or "")
    with tempfile.TemporaryDirectory() as private:
        library = (cache if cache.is_absolute() and cache.is_dir() else Path(private)) / f"{_target()}.so"
        try:
            function = _compiled(compiler, library)
        except subprocess.CalledProcessError as error:
            return f"{compiler} fails: {(error.stderr.strip() or 'no message').splitlines()[0]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"cannot be compiled: {error}"
    jax.ffi.register_ffi_target(_target(), jax.ffi.pycapsule(function), platform="cpu")
    return None


def _compiled(compiler: str, library: Path) -> Any:
    """Return the function of a library, which is compiled unless it is there and can be loaded."""
    with contextlib.suppress(OSError):
        return ctypes.CDLL(str(library)).LogitSums
    made = library.with_suffix(f".{os.getpid()}")  # several processes may compile it at once
    command = [compiler, *FLAGS, "-I", jax.ffi.include_dir(), str(SOURCE), "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONGEST)
    made.replace(library)
    return ctypes.CDLL(str(library)).LogitSums


@functools.cache
def _key() -> str:
    """Return a hash of what the compiled function depends on, the processor included."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = f"{platform.processor()} {platform.node()}"
    parts = (SOURCE.read_text(), *FLAGS, os.environ.get("CXX", ""), jaxlib.__version__, processor)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
