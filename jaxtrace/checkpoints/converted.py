"""Marker of a converted checkpoint: written last, it says that the parameters beside it are complete."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from jaxtrace.documents import read_model
from jaxtrace.errors import CheckpointError

PARAMS = "params"  # directory of the Orbax checkpoint
MARKER = "jaxtrace.json"  # a Conversion; written last
STARTED = "converting.json"  # a ConversionProgress; present until then
FOREIGN = "not what this version of jaxtrace writes"

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

# Stands among the SHA-256 of weight files where the embeddings are stored untied although the config ties them.
UNTIED = hashlib.sha256(b"untied").hexdigest()


class Conversion(BaseModel):
    """Source and settings of a conversion.

    Attributes:
      format: version of the directory's format.
      source: name of the source checkpoint.
      fingerprint: fingerprint of the source checkpoint.
      dtype: dtype of the parameters; "as stored" if each keeps its own.
      mesh: mesh over which they were split while they were written, or None.
      weights: SHA-256 of each weight file of the source, of the dtype if numbers were rounded to it, and `UNTIED` if
        that holds.
      revision: commit of the source on the hub; None for another directory.
      revision_name: branch, tag or commit that the user named; None for the main branch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    source: str
    fingerprint: Sha256
    dtype: str
    mesh: str | None
    weights: tuple[Sha256, ...]
    revision: str | None = None
    revision_name: str | None = None

    @property
    def text(self) -> str:
        """Source and settings in a few words."""
        return f"{self.source} with dtype {self.dtype}" + (f" and mesh {self.mesh}" if self.mesh else "")


def read_conversion(directory: Path, name: str) -> Conversion | None:
    """Return the conversion that a directory holds, or None for a directory without one.

    Args:
      directory: directory of a checkpoint.
      name: name of the checkpoint, for error messages.

    Raises:
      CheckpointError: the conversion is unfinished, or its marker cannot be parsed.
    """
    marker = directory / MARKER
    if not marker.exists():
        if (directory / STARTED).exists() or (directory / PARAMS).exists():
            raise CheckpointError(f"{name}: is half-written; run the same jaxtrace convert again to finish it")
        return None
    return read_model(
        Conversion, marker, CheckpointError, FOREIGN, "convert the checkpoint again, into a new directory"
    )
