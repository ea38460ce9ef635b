"""Several processes, one program: which rows of a batch are whose, and what each can read of arrays they share.

All processes run the same programs in the same order; the runtime that joins them is `jax.distributed`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from jaxtrace.errors import ConfigError, JaxtraceError
from jaxtrace.parallel.sharding import ShardingRules

HEARTBEAT_SECONDS = 60  # without a sign of a process, JAX ends the others, with its own message and SIGABRT
MESSAGE = 4096  # bytes of the longest message that one process sends the others
T = TypeVar("T")


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the processes that were started together; before anything else is asked of JAX.

    Without arguments JAX finds out from the environment: TPU pods, SLURM, Kubernetes and MPI are recognised.

    Args:
      coordinator: "host:port" of process 0, free there.
      processes: how many there are.
      process: which one this is.

    Raises:
      ConfigError: the environment says nothing, or what is given is not enough.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"processes: {reason} JAX recognises no cluster here; give --coordinator, --processes and --process"
        ) from None


def own_rows(mesh: Mesh | None, rows: int) -> Bool[np.ndarray, " B"]:
    """Which rows of a batch this process is to read and write: each row is one process's, of those that have it."""
    if mesh is None or not mesh.is_multi_process:
        return np.ones(rows, bool)
    having: list[set[int]] = [set() for _ in range(rows)]
    for device, (part,) in _of_rows(mesh, rows).devices_indices_map((rows,)).items():
        for row in range(rows)[part]:
            having[row].add(device.process_index)
    owners = [sorted(some)[row % len(some)] for row, some in enumerate(having)]
    return np.array(owners) == jax.process_index()


def everyone(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays on the host, whole, in every process."""
    if mesh is None or not mesh.is_multi_process:
        return jax.device_get(tree)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.device_get(_resharded((whole,) * len(jax.tree.leaves(tree)))(tree))


def fetched(tree: Any, mesh: Mesh | None, rows: int) -> Any:
    """Arrays on the host: scalars of every row, and of the rest what belongs to this process's rows.

    Args:
      tree: arrays of two dimensions (scalars of a row) or more.
      mesh: where they are.
      rows: their axis of rows.
    """
    if mesh is None or not mesh.is_multi_process:
        return jax.device_get(tree)

    def sharding(x: jax.Array) -> NamedSharding:
        ahead = (None,) * rows
        spec = _of_rows(mesh, x.shape[rows]).spec
        return NamedSharding(mesh, PartitionSpec() if x.ndim == 2 else PartitionSpec(*ahead, *spec))

    placed = _resharded(tuple(sharding(x) for x in jax.tree.leaves(tree)))(tree)
    return jax.tree.map(_addressable, placed)


def of_several() -> int | None:
    """Which process this is, None where there is one."""
    return jax.process_index() if jax.distributed.is_initialized() and jax.process_count() > 1 else None


def leading() -> bool:
    """Whether this is the only process, or the first: the one that says what is said once."""
    return of_several() in (None, 0)


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def alike(call: Callable[[], T]) -> T:
    """Calls in every process; where it fails in one, it fails in all.

    Args:
      call: in which no process waits for another.

    Raises:
      JaxtraceError: what the call raised in another process; in its own, whatever it raised.
    """
    if jax.process_count() == 1:
        return call()
    result, failure = None, None
    try:
        result = call()
    except Exception as error:
        failure = error
    said = multihost_utils.process_allgather(_letters("" if failure is None else str(failure) or repr(failure)))
    if failure is not None:
        raise failure
    for row in said:
        if message := bytes(row).rstrip(b"\0").decode(errors="ignore"):
            raise JaxtraceError(message)
    return cast(T, result)


def in_turn(call: Callable[[], T]) -> T:
    """Calls in process 0, and when that is done in the others; where it fails in one, it fails in all, as `alike`."""
    leading = jax.process_index() == 0
    result = alike(lambda: call() if leading else None)
    return cast(T, alike(lambda: result if leading else call()))


def as_first(numbers: np.ndarray) -> np.ndarray:
    """Numbers of process 0, in every process."""
    return numbers if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(numbers))


def _letters(message: str) -> np.ndarray:
    return np.frombuffer(message.encode()[:MESSAGE].ljust(MESSAGE, b"\0"), np.uint8)


def _of_rows(mesh: Mesh, rows: int) -> NamedSharding:
    return NamedSharding(mesh, ShardingRules().spec(("batch",), (rows,), mesh))


@functools.cache
def _resharded(shardings: tuple[NamedSharding, ...]) -> Any:
    """tree → the same tree, its leaves in these shardings."""

    def move(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        moved = map(jax.lax.with_sharding_constraint, leaves, shardings)
        return jax.tree.unflatten(structure, moved)

    return jax.jit(move)


def _addressable(x: jax.Array) -> np.ndarray:
    """An array with this process's part in its place, and nothing of worth elsewhere."""
    found = np.zeros(x.shape, x.dtype)
    for shard in x.addressable_shards:
        found[shard.index] = shard.data
    return found
