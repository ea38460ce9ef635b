"""Where files of a trace lie: a local disk, or whatever fsspec reaches by a URL."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from jaxtrace.errors import StoreError


@dataclasses.dataclass(frozen=True)
class Location:
    """A file or a directory, there or not.

    Attributes:
      fs: its file system.
      path: its path on that.
    """

    fs: AbstractFileSystem
    path: str

    @classmethod
    def of(cls, root: str | Path | Location) -> Location:
        """That of a local path or a URL ("s3://bucket/study", "memory://study", "file:///data/study").

        Raises:
          StoreError: no file system of that name, or its package is not installed.
        """
        if isinstance(root, Location):
            return root
        try:
            return cls(*url_to_fs(str(root), use_listings_cache=False))
        except (ImportError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{root}: {reason}; name a local directory or a URL that fsspec knows") from None

    def __truediv__(self, name: str) -> Location:
        return Location(self.fs, f"{self.path.rstrip('/')}/{name}") if name else self

    def __str__(self) -> str:
        return self.path if self.local else self.fs.unstrip_protocol(self.path)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The directory it is in."""
        return Location(self.fs, self.path.rpartition("/")[0])

    @property
    def local(self) -> bool:
        """Whether it is on a local disk."""
        return isinstance(self.fs, LocalFileSystem)

    def names(self) -> list[str]:
        """Names of what is in a directory; none if it is not there."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.path, detail=False)]
        except FileNotFoundError:
            return []

    def files(self) -> dict[str, int]:
        """Paths, from here, of all files in a directory and those below it, with their sizes in bytes."""
        found: Any = self.fs.find(self.path, detail=True)
        return {path.removeprefix(self.path).lstrip("/"): entry["size"] for path, entry in sorted(found.items())}

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """Opens a file that takes its name only when it is whole and, on a local disk, there to stay.

        Until then it is called `.NAME.tmp`: readers of a directory of Parquet files leave out names with a dot.
        Elsewhere it is sent in one piece when it is closed.
        """
        if not self.local:
            buffer = io.BytesIO()
            yield buffer
            self.fs.pipe_file(self.path, buffer.getvalue())
            return
        path = Path(self.path)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
