"""What stands beside the parameters of a converted checkpoint, and says that it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from jaxtrace.errors import CheckpointError

PARAMS = "params"  # the Orbax checkpoint
MARKER = "jaxtrace.json"  # a Conversion; written last
STARTED = "converting.json"  # there until then


class Conversion(BaseModel):
    """What a conversion makes of what.

    Attributes:
      format: of the directory.
      source: the checkpoint's name.
      fingerprint: the source's.
      dtype: of the parameters; "as stored" where each keeps its own.
      mesh: over which they were split while they were written, or None.
      weights: SHA-256 of each of the source's weight files; another, of the dtype, where numbers were rounded to it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    source: str
    fingerprint: str
    dtype: str
    mesh: str | None
    weights: tuple[str, ...]

    @property
    def text(self) -> str:
        """In a few words."""
        return f"{self.source} with dtype {self.dtype}" + (f" and mesh {self.mesh}" if self.mesh else "")


def read_conversion(directory: Path, name: str) -> Conversion | None:
    """What a directory was converted from, or None where it is no conversion.

    Raises:
      CheckpointError: the conversion was interrupted, or what it left cannot be understood.
    """
    marker = directory / MARKER
    if not marker.exists():
        if (directory / STARTED).exists() or (directory / PARAMS).exists():
            raise CheckpointError(f"{name}: is half-written; run the same jaxtrace convert again to finish it")
        return None
    try:
        return Conversion.model_validate_json(marker.read_bytes())
    except ValidationError:
        raise CheckpointError(
            f"{marker}: not what this version of jaxtrace writes; convert the checkpoint again, into a new directory"
        ) from None
