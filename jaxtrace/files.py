"""Readers of JSON and YAML mappings, the atomic file writer, and the rule for outputs that exist."""

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

import yaml

from jaxtrace.errors import ConfigError, JaxtraceError, StoreError

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
TEMPORARY = ".*.tmp"  # pattern of the names of unfinished files
PROBE_BYTES = 4096


def read_json(path: Path, error: type[JaxtraceError] = ConfigError, advice: str = "give a JSON file") -> dict[str, Any]:
    """Return the mapping that a JSON file holds.

    Args:
      path: file to read, UTF-8.
      error: class of the error to raise.
      advice: end of its message, which says what the user can do.

    Raises:
      JaxtraceError: the file is missing, unreadable, not JSON or not a mapping.
    """
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror or cause}); {advice}") from None
    except ValueError as cause:
        raise error(f"{path}: not valid JSON ({cause}); {advice}") from None
    if not isinstance(mapping, dict):
        raise error(f"{path}: not a JSON object; {advice}")
    return mapping


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of settings that a YAML file holds.

    Raises:
      ConfigError: the file is missing, unreadable, not YAML or not a mapping.
    """
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); correct the file") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: not a YAML mapping of settings; write one `name: value` per line")
    return mapping


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
    _refuse_irregular(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, NEW_FILE, 0o666), "wb") as file:
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
            reason = f"{os.strerror(errno.ENOSPC)} ({size / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free)"
            raise OSError(errno.ENOSPC, reason)
    except OSError as error:
        error.filename = str(directory)
        raise


def claim_file(out: Path, *, overwrite: bool = False) -> None:
    """Refuse an output file that exists (unless `overwrite`) or cannot be written; see `claim_directory`."""
    _refuse_irregular(out)
    if not overwrite and out.exists() and out.stat().st_size:
        raise StoreError(f"{out}: exists already; replace it with --overwrite, or name another file")
    check_writable(out.parent)


def claim_directory(
    out: Path, last: str, own: Sequence[str], *, overwrite: bool = False, resume: bool | None = None
) -> None:
    """Refuse an output directory that is in use or cannot be written; called before the work that fills it.

    The one rule for `--out`: a missing, empty or unfinished output is written; a finished one and other files are
    refused.

    Args:
      last: name of the file that is written last; with it the output is finished.
      own: patterns of the names of the other files and directories in such an output.
      overwrite: True accepts everything; the caller replaces files of its own names.
      resume: True also accepts a finished output; None if the command has no such option.

    Raises:
      StoreError: the directory is a file, or holds a finished output or other files.
      OSError: the directory cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file; name a directory")
    names = [path.name for path in out.iterdir()] if out.exists() else []
    foreign = [name for name in names if not any(fnmatch(name, each) for each in (last, *own, TEMPORARY))]
    if not overwrite and (foreign or (last in names and not resume)):
        problem = f"holds {min(foreign)}" if foreign else f"holds a finished result, {last}"
        ways = "continue it with --resume, " if resume is False and not foreign else ""
        raise StoreError(f"{out}: {problem}; {ways}replace it with --overwrite, or name another directory")
    check_writable(out)


def _refuse_irregular(path: Path) -> None:
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
