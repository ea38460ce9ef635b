"""Finds local copies of published models, so that a short name works without a network."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from jaxtrace.models.published import PublishedModel

FOLDER = "JAXTRACE_MODELS"
DEFAULT_FOLDER = "~/.cache/jaxtrace-real"


def local_copy(model: PublishedModel) -> Path | None:
    """Return the directory of a local copy of a published model; None if there is none, or the hub's cache has it.

    A copy is a checkpoint directory named "smollm2-135m-instruct" or "smollm2-135m" in $JAXTRACE_MODELS, by default
    ~/.cache/jaxtrace-real.
    """
    if isinstance(try_to_load_from_cache(model.hub_id, "config.json"), str):
        return None
    folder = Path(os.environ.get(FOLDER) or DEFAULT_FOLDER).expanduser()
    copies = [folder / name for name in (model.name, model.name.removesuffix("-instruct"))]
    return next((copy for copy in copies if (copy / "config.json").exists()), None)
