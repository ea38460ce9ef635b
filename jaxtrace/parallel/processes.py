"""Several processes that run one program: which rows of a batch each one handles, and how they exchange arrays.

All processes run the same programs in the same order; `jax.distributed` connects them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from jaxtrace.errors import ConfigError, JaxtraceError
from jaxtrace.parallel.sharding import ShardingRules

HEARTBEAT_SECONDS = 60  # without a heartbeat of one process, JAX ends the others with its own message and SIGABRT
MAX_MESSAGE_BYTES = 4096  # longest error message that one process sends to the others
T = TypeVar("T")


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the processes that were started together; call this before any other use of JAX.

    Without arguments JAX reads the environment: it recognises TPU pods, SLURM, Kubernetes and MPI.

    Args:
      coordinator: "host:port" of process 0, with a free port.
      processes: number of processes.
      process: number of this process, from 0.

    Raises:
      ConfigError: the environment names no cluster, or the arguments are incomplete.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"processes: {reason} JAX recognises no cluster here; give --coordinator, --processes and --process"
        ) from None


def local_rows(mesh: Mesh | None, rows: int) -> Bool[np.ndarray, " B"]:
    """Return a mask of the batch rows that this process reads and writes; each row belongs to one process."""
    if mesh is None or not mesh.is_multi_process:
        return np.ones(rows, bool)
    holders: list[set[int]] = [set() for _ in range(rows)]
    for device, (part,) in _row_sharding(mesh, rows).devices_indices_map((rows,)).items():
        for row in range(rows)[part]:
            holders[row].add(device.process_index)
    owners = [sorted(processes)[row % len(processes)] for row, processes in enumerate(holders)]
    return np.array(owners) == jax.process_index()


def gather_to_host(tree: Any, mesh: Mesh | None) -> Any:
    """Return whole arrays on the host of every process."""
    if mesh is None or not mesh.is_multi_process:
        return jax.device_get(tree)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.device_get(_resharded((whole,) * len(jax.tree.leaves(tree)))(tree))


def local_to_host(tree: Any, mesh: Mesh | None, rows: int) -> Any:
    """Return arrays on the host: scalars of every row, and the other arrays for this process's rows only.

    Args:
      tree: arrays with two dimensions (one scalar per row) or more.
      mesh: mesh that the arrays are on.
      rows: axis of the arrays' rows.
    """
    if mesh is None or not mesh.is_multi_process:
        return jax.device_get(tree)

    def sharding(x: jax.Array) -> NamedSharding:
        spec = _row_sharding(mesh, x.shape[rows]).spec
        return NamedSharding(mesh, PartitionSpec() if x.ndim == 2 else PartitionSpec(*(None,) * rows, *spec))

    placed = _resharded(tuple(sharding(x) for x in jax.tree.leaves(tree)))(tree)
    return jax.tree.map(_addressable, placed)


def process_number() -> int | None:
    """Return the number of this process, or None if it is the only one."""
    return jax.process_index() if jax.distributed.is_initialized() and jax.process_count() > 1 else None


def is_leader() -> bool:
    """Return True in the only or first process, which prints and writes what is needed once."""
    return process_number() in (None, 0)


def barrier(name: str) -> None:
    """Wait until every process has called this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def raise_together(call: Callable[[], T]) -> T:
    """Call a function in every process; if it raises in one process, raise in all.

    Args:
      call: function that does not wait for other processes.

    Raises:
      JaxtraceError: the function raised in another process. In the failing process, its own error is raised.
    """
    if jax.process_count() == 1:
        return call()
    result, failure = None, None
    try:
        result = call()
    except Exception as error:
        failure = error
    messages = multihost_utils.process_allgather(_encode("" if failure is None else str(failure) or repr(failure)))
    if failure is not None:
        raise failure
    for row in messages:
        if message := bytes(row).rstrip(b"\0").decode(errors="ignore"):
            raise JaxtraceError(message)
    return cast(T, result)


def leader_first(call: Callable[[], T]) -> T:
    """Call a function in process 0, then in the others; if it raises in one process, raise in all."""
    leader = jax.process_index() == 0
    result = raise_together(lambda: call() if leader else None)
    return cast(T, raise_together(lambda: result if leader else call()))


def broadcast_from_leader(numbers: np.ndarray) -> np.ndarray:
    """Return process 0's array in every process."""
    return numbers if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(numbers))


def time_of_leader(time: datetime | None = None) -> datetime:
    """Return process 0's time, or its current time for None, in every process; to the second."""
    time = (time or datetime.now()).replace(microsecond=0)
    day, second = broadcast_from_leader(
        np.array([time.toordinal(), time.hour * 3600 + time.minute * 60 + time.second], np.int32)
    )
    return datetime.fromordinal(int(day)) + timedelta(seconds=int(second))


def _encode(message: str) -> np.ndarray:
    return np.frombuffer(message.encode()[:MAX_MESSAGE_BYTES].ljust(MAX_MESSAGE_BYTES, b"\0"), np.uint8)


def _row_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    return NamedSharding(mesh, ShardingRules().spec(("batch",), (rows,), mesh))


@functools.cache
def _resharded(shardings: tuple[NamedSharding, ...]) -> Callable[[Any], Any]:
    """Compile a function that moves a tree's leaves to these shardings."""

    def move(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, map(jax.lax.with_sharding_constraint, leaves, shardings))

    return jax.jit(move)


def _addressable(x: jax.Array) -> np.ndarray:
    """Return an array with this process's shards, and zeros elsewhere."""
    local = np.zeros(x.shape, x.dtype)
    for shard in x.addressable_shards:
        local[shard.index] = shard.data
    return local
