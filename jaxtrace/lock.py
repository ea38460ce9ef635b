"""Advisory lock on a directory that is being written: one program at a time writes it, and readers never ask."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import BaseModel, Field, ValidationError

from jaxtrace.errors import StoreError, reason_of
from jaxtrace.files import LOCK

WAIT_SECONDS = 0.5  # longest wait for a local lock, which another program may test for a moment
BEAT_SECONDS = 15  # time between two signs of life in a lock object
STALE_SECONDS = 120  # a lock object without a sign of life for this long is void; clocks must differ by less
SETTLE_SECONDS = 1.0  # a new lock object is read back after this: longer than another program's check and write
MAX_HOLDER_BYTES = 4096
NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # errors of local file systems without locks
ADVICE = "wait for it, end it, or name another directory"

_creating = threading.Lock()
_held: set[str] = set()  # tokens of this process's lock objects
_open: set[str] = set()  # tokens of this process's locks that admit its locks further inside


class Holder(BaseModel):
    """Content of a lock file: who holds the lock.

    Attributes:
      pid, host: process that holds it.
      since: time when it took the lock.
      token: random text that no other lock has.
      beat: latest sign of life in seconds since the epoch; None where the kernel frees the lock.
    """

    pid: int = Field(gt=0, lt=2**31)
    host: str = Field(max_length=255)
    since: datetime
    token: str
    beat: float | None = None

    def __str__(self) -> str:
        since = self.since.astimezone()
        is_today = since.date() == datetime.now().date()
        start = since.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M")
        return f"pid {self.pid} on {self.host} has been writing it since {start}"

    @property
    def is_dead(self) -> bool:
        """True if the holder of a lock object ended without freeing it."""
        if self.host == socket.gethostname():
            if self.pid == os.getpid():  # of this program, or of one that had its number in another container
                return self.token not in _held
            if not _is_running(self.pid):
                return True
        return self.beat is not None and time.time() - self.beat > STALE_SECONDS


class WriteLock:
    """Lock on a directory, held from its creation to `release`, the end of a `with` block or garbage collection.

    On a local disk it is an flock on `DIRECTORY/.jaxtrace.lock`, which the kernel frees when the process ends, even by
    SIGKILL. Elsewhere, and on disks without flock, it is an object of that name that is created only if there is none.
    Its holder renews it every `BEAT_SECONDS`; it is void after `STALE_SECONDS`, or once its process on this host ended.
    """

    def __init__(
        self,
        name: str | Path,
        fs: AbstractFileSystem | None = None,
        path: str | None = None,
        *,
        nested: bool = False,
    ) -> None:
        """Create a directory if it is missing, and take its lock.

        Args:
          name: directory's name for messages; its local path if no file system is given.
          fs: directory's file system.
          path: directory's path there.
          nested: True if this program also locks directories inside; other programs still cannot.

        Raises:
          StoreError: another program, or another part of this one, is writing the directory or one that contains it;
            or the directory cannot be written.
        """
        self._fs, self._name = fs or LocalFileSystem(), str(name)
        path = path or str(name)
        self._path = os.path.realpath(path) if self._is_local else path.rstrip("/")
        self._file = f"{self._path}/{LOCK}"
        now = datetime.now().astimezone()
        self._holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=now, token=uuid.uuid4().hex)
        created: list[Path] = []
        try:
            if self._fs.isfile(self._path):
                raise StoreError(f"{self._name}: is a file; name a directory")
            if self._is_local:
                folder = Path(self._path)
                created = [each for each in (folder, *folder.parents) if not each.exists()]
                self._fs.makedirs(self._path, exist_ok=True)
            stop, release = self._acquire()
        except OSError as error:
            raise StoreError(f"{self._name}: {reason_of(error)}; name a directory that can be written") from error
        finally:
            for each in created:  # unless the lock is in it
                with suppress(OSError):
                    each.rmdir()
        if nested:
            _open.add(self._holder.token)
        self._free = weakref.finalize(self, _free, self._fs, self._file, self._holder, stop, release, created)
        for parent in PurePosixPath(self._path).parents:
            self.refuse_other(str(parent), f"lies in {parent}")

    def refuse_other(self, path: str, relation: str) -> None:
        """Release this lock and raise StoreError if another program is writing another directory.

        Args:
          path: path of the other directory on the same file system.
          relation: phrase for the message that says what the other directory is to this one.
        """
        holder = _live_holder(self._fs, f"{path.rstrip('/')}/{LOCK}")
        if holder and holder.token not in _open:
            self.release()
            raise StoreError(f"{self._name}: {relation}, and {holder}; {ADVICE}")

    def check(self) -> None:
        """Raise StoreError, with an OSError as its cause, if the lock was released, deleted or taken over."""
        with suppress(OSError):  # a store that cannot be read now says nothing
            stored = _read(self._fs, self._file) if self._free.alive else None
            if stored is None or stored.token != self._holder.token:
                gone = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._file)
                raise StoreError(
                    f"{self._name}: {LOCK} is gone: the directory was deleted, or another program took it over; "
                    "see that no other program writes it, and start again"
                ) from gone

    def release(self) -> None:
        """Free the directory, and delete it if it was created here and is empty."""
        self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def _is_local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

    def _acquire(self) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Take the lock, and return what to call before the lock file is deleted and afterwards."""
        if self._is_local:
            try:
                lock = _flock(self._file, WAIT_SECONDS, self._holder)
                lock.acquire()
                return _nothing, lock.release
            except Timeout:
                holder = _read(self._fs, self._file) or "another program is writing it"
                raise StoreError(f"{self._name}: {holder}; {ADVICE}") from None
            except OSError as error:
                if error.errno not in NO_FLOCK:
                    raise
        with _creating:
            _held.add(self._holder.token)
            try:
                self._create_object()
            except BaseException:
                _held.discard(self._holder.token)
                raise
        ended = threading.Event()
        beating = threading.Thread(target=_beat, args=(self._fs, self._file, self._holder, ended), daemon=True)
        beating.start()

        def stop() -> None:
            ended.set()
            if beating is not threading.current_thread():
                beating.join(SETTLE_SECONDS)

        return stop, _nothing

    def _create_object(self) -> None:
        self._holder.beat = time.time()
        content = self._holder.model_dump_json().encode()
        settles = not isinstance(self._fs, MemoryFileSystem)
        other = _read(self._fs, self._file)
        if other is not None and other.is_dead:
            self._fs.rm_file(self._file)
            other = None
        if other is None:
            try:
                self._fs.pipe_file(self._file, content, mode="create")
            except (OSError, TypeError, ValueError, NotImplementedError):
                other = _read(self._fs, self._file)
                if other is None:  # a store without conditional creation
                    self._fs.pipe_file(self._file, content)
        if other is None:
            if settles:
                time.sleep(SETTLE_SECONDS)
            other = _read(self._fs, self._file)
        if other is None or other.token != self._holder.token:
            place = self._file if self._is_local else self._fs.unstrip_protocol(self._file)
            dead = f"if it has died, delete {place} or wait {STALE_SECONDS} s"
            raise StoreError(f"{self._name}: {other or 'another program is writing it'}; {ADVICE}; {dead}")


def _flock(file: str, timeout: float, holder: Holder | None = None) -> FileLock:
    """Return a lock of the kernel on a file, which writes its holder into the file once it is acquired."""

    def write(descriptor: int) -> None:
        if holder is not None:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, holder.model_dump_json().encode())

    return FileLock(file, timeout, thread_local=False, fallback_to_soft=False, on_acquired=write)


def _nothing() -> None: ...


def _free(
    fs: AbstractFileSystem,
    file: str,
    holder: Holder,
    stop: Callable[[], Any],
    release: Callable[[], Any],
    created: list[Path],
) -> None:
    if os.getpid() != holder.pid:  # a forked child
        return
    stop()
    with suppress(OSError, RuntimeError):  # fsspec refuses to wait where garbage is collected in its own thread
        stored = _read(fs, file)
        if stored is not None and stored.token == holder.token:
            fs.rm_file(file)
    release()
    _held.discard(holder.token)
    _open.discard(holder.token)
    for folder in created:
        with suppress(OSError):
            folder.rmdir()


def _beat(fs: AbstractFileSystem, file: str, holder: Holder, ended: threading.Event) -> None:
    """Renew a lock object until it is freed or taken over."""
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            stored = _read(fs, file)
            if stored is None or stored.token != holder.token:
                return
            fs.pipe_file(file, holder.model_copy(update={"beat": time.time()}).model_dump_json().encode())


def _read(fs: AbstractFileSystem, file: str) -> Holder | None:
    """Return the holder that a lock file names; None without a file, or if it names none."""
    if isinstance(fs, LocalFileSystem) and not Path(file).is_file():
        return None
    try:
        return Holder.model_validate_json(fs.cat_file(file, end=MAX_HOLDER_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _live_holder(fs: AbstractFileSystem, file: str) -> Holder | None:
    """Return the holder of a lock if it still runs."""
    try:
        holder = _read(fs, file)
        if holder is None or holder.beat is not None:
            return None if holder is None or holder.is_dead else holder
        lock = _flock(file, 0)
        lock.acquire()
        lock.release()
    except Timeout:
        return holder
    except OSError:
        pass
    return None


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return True  # there, signal 0 would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
