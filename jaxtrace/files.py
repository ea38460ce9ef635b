"""Readers of JSON and YAML mappings, and an atomic file writer."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from jaxtrace.errors import ConfigError, JaxtraceError

LOCK = ".jaxtrace.lock"  # name of the lock file in a directory that is being written, see `WriteLock`


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

    Until then its name is `.NAME.tmp`, which readers of a directory of Parquet files ignore. An error or an interrupt
    deletes it; the next write of the same name replaces one that a kill has left behind.

    Args:
      path: file to write or replace; its directory must exist.
      shared: True if several processes may write this file at once; the temporary name then contains the process id.

    Yields:
      The temporary file, open for writing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
