"""Locations of trace files: a local disk, or any file system that fsspec reaches by a URL."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from jaxtrace.errors import StoreError, first_line
from jaxtrace.files import atomic_file, open_regular


@dataclasses.dataclass(frozen=True)
class Location:
    """A file or a directory, which may not exist.

    Attributes:
      fs: its file system.
      path: its path on the file system.
    """

    fs: AbstractFileSystem
    path: str

    @classmethod
    def of(cls, root: str | Path | Location) -> Location:
        """Return the location of a local path or a URL ("s3://bucket/study", "memory://study", "file:///data/study").

        Raises:
          StoreError: fsspec does not know the file system, or its package is not installed.
        """
        if isinstance(root, Location):
            return root
        if "\0" in str(root):
            raise StoreError(f"{str(root)!r}: no path holds a NUL; name a directory or a URL")
        try:
            return cls(*url_to_fs(str(root), use_listings_cache=False))
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"{root}: {first_line(error)}; name a local directory or a URL that fsspec knows"
            ) from None

    def __truediv__(self, name: str) -> Location:
        return Location(self.fs, f"{self.path.rstrip('/')}/{name}") if name else self

    def __str__(self) -> str:
        return self.path if self.local else self.fs.unstrip_protocol(self.path)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """Directory that holds it."""
        return Location(self.fs, self.path.rpartition("/")[0])

    @property
    def local(self) -> bool:
        """True on a local disk."""
        return isinstance(self.fs, LocalFileSystem)

    def exists(self) -> bool:
        """Return True if there is a file or a directory."""
        return self.fs.exists(self.path)

    def read(self, most: int | None = None) -> bytes:
        """Return the content of a file.

        Args:
          most: largest number of bytes; None for any.

        Raises:
          OSError: the file is missing, unreadable, larger, or not a regular file, such as a named pipe.
        """
        if self.local:
            with open_regular(Path(self.path)) as file:
                content = file.read(-1 if most is None else most + 1)
        else:
            content = cast(bytes, self.fs.cat_file(self.path, end=None if most is None else most + 1))
        if most is not None and len(content) > most:
            raise OSError(errno.EFBIG, f"Larger than {most:,} bytes", self.path)
        return content

    def tail(self, size: int) -> bytes:
        """Return the last bytes of a file, all if it has fewer; raises like `read`."""
        if not self.local:
            return cast(bytes, self.fs.cat_file(self.path, start=-size))
        with open_regular(Path(self.path)) as file:
            file.seek(-min(size, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read()

    def names(self) -> list[str]:
        """Return the names of a directory's entries; none if the directory does not exist."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.path, detail=False)]
        except FileNotFoundError:
            return []

    def files(self) -> dict[str, int]:
        """Return the size in bytes of each file below a directory, by its path relative to the directory."""
        entries: Any = self.fs.find(self.path, detail=True)
        return {path.removeprefix(self.path).lstrip("/"): entry["size"] for path, entry in sorted(entries.items())}

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """Open a file that appears under its name only once it is complete.

        A local file is synced to the disk first, see `atomic_file`; a remote one is sent in one piece when it is
        closed.
        """
        if self.local:
            with atomic_file(Path(self.path)) as file:
                yield file
        else:
            buffer = io.BytesIO()
            yield buffer
            self.fs.pipe_file(self.path, buffer.getvalue())
