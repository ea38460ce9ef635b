"""The atomic writer of every file, and files and places that cannot be read or written."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO

from jaxtrace.errors import StoreError
from jaxtrace.memory import format_bytes

NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
TEMPORARY = ".*.tmp"  # pattern of the names of unfinished files
LOCK = ".jaxtrace.lock"  # name of the lock file in a directory that is being written, see `WriteLock`
PROBE_BYTES = 4096


def path_exists(path: str | Path) -> bool:
    """Return whether there is a file or directory; False for a name that no file can have, such as a too long one."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes, and never wait for a writer.

    Raises:
      OSError: the file is missing, unreadable, or not a regular file: a directory, a named pipe, a device, a socket.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return file


def write_atomically(path: Path, content: str | bytes, *, shared: bool = False) -> None:
    """Write a whole file or nothing; text is encoded as UTF-8. See `atomic_file`."""
    with atomic_file(path, shared=shared) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under its name only once it is complete and synced to the disk.

    All files of jaxtrace are written here, except those of Orbax, TensorBoard, and JAX's profiler and compile cache.
    Until then its name is `.NAME.tmp`, which readers of a directory of Parquet files ignore. An error or an interrupt
    deletes it; the next write of the same name replaces one that a kill has left behind. A symbolic link in place of
    either file is never followed; the directory may be one.

    Args:
      path: file to write or replace; its directory must exist.
      shared: True if several processes may write this file at once; the temporary name then contains the process id.

    Yields:
      The temporary file, open for writing.

    Raises:
      StoreError: the path is a link, a directory or a device, or another process is writing it.
      OSError: the file cannot be written; its `filename` is the path.
    """
    refuse_irregular(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, NEW_FILE, 0o666), "w+b") as file:
            identity = os.fstat(file.fileno())
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if not _is_file(temporary, identity):
                    raise StoreError(f"{path}: another process is writing it; wait for its end, or name another place")
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    file.close()
                with suppress(OSError):
                    if _is_file(temporary, identity):
                        temporary.unlink()
                raise
        _sync_directory(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def check_writable(directory: Path, size: int = PROBE_BYTES) -> None:
    """Check that files can be written below a directory, which need not exist; called before expensive work.

    Args:
      size: bytes that the files will take.

    Raises:
      OSError: the disk is full or read-only, permission is missing, or a file is in the way; its `filename` is the
        directory.
    """
    try:
        existing = next(folder for folder in (directory, *directory.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        if (free := shutil.disk_usage(existing).free) < size:
            reason = f"{os.strerror(errno.ENOSPC)} ({format_bytes(size)} needed, {format_bytes(free)} free)"
            raise OSError(errno.ENOSPC, reason)
    except OSError as error:
        error.filename = str(directory)
        raise


def refuse_irregular(path: Path) -> None:
    """Raise StoreError if a path exists and is not a regular file; a link is not followed."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise StoreError(f"{path}: is {kind}, which is never replaced; name another file")


def _is_file(path: Path, identity: os.stat_result) -> bool:
    """Return True if a path leads to a file, itself and not through a link."""
    try:
        return os.path.samestat(path.lstat(), identity)
    except FileNotFoundError:
        return False


def _sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut, where the file system can."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync no directories
            raise
    finally:
        os.close(descriptor)
