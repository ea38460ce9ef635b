"""Finds local copies of published models, so that a short name works without a network."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from jaxtrace.checkpoints.gguf.files import is_gguf_file, models_in
from jaxtrace.checkpoints.huggingface import read_shape
from jaxtrace.errors import CheckpointError, few
from jaxtrace.models.published import PublishedModel

FOLDER = "JAXTRACE_MODELS"
DEFAULT_FOLDER = "~/.cache/jaxtrace-real"
# End of a GGUF file's name: what its weights are stored as, and the number of a part.
ENDING = r"([-._](UD-)?(I?Q\d|TQ\d|B?F16|F32|FP16|FP32|MXFP4)\w*)?(-\d{5}-of-\d{5})?\.gguf"
COPY = "local copy"


def local_name(model: PublishedModel, copy: Path) -> str:
    """Return the name of a model's local copy, which a run stores: "HuggingFaceTB/SmolLM2-135M (local copy)"."""
    return f"{model.hub_id} ({COPY if copy.is_dir() else f'{COPY}, {copy.name}'})"


def without_copy(name: str) -> str:
    """Return a name without what `local_name` adds to a hub id."""
    return re.sub(rf" \({COPY}(, .*)?\)$", "", name)


def local_copy(model: PublishedModel) -> Path | None:
    """Return a local copy of a published model; None if there is none, or the hub's cache has it.

    A copy is a checkpoint directory named "smollm2-135m-instruct" or "smollm2-135m" in $JAXTRACE_MODELS, by default
    ~/.cache/jaxtrace-real; or a GGUF file there with this name, such as SmolLM2-135M-Instruct.Q4_1.gguf.
    $JAXTRACE_MODELS may also be one GGUF file, with this name or of the model's shape.

    Raises:
      CheckpointError: several GGUF models there have the name.
    """
    if isinstance(try_to_load_from_cache(model.hub_id, "config.json"), str):
        return None
    place = Path(os.environ.get(FOLDER) or DEFAULT_FOLDER).expanduser()
    names = (model.name, model.name.removesuffix("-instruct"))
    if (copy := next((place / name for name in names if (place / name / "config.json").exists()), None)) is not None:
        return copy
    pattern = re.compile(f"({'|'.join(map(re.escape, names))}){ENDING}", re.IGNORECASE)
    if place.is_file() and is_gguf_file(place):
        return place if pattern.fullmatch(place.name) or _same_shape(place, model) else None
    copies = [path for path in models_in(place) if pattern.fullmatch(path.name)]
    if len(copies) > 1:
        shown = few([str(path.relative_to(place)) for path in copies])
        raise CheckpointError(f"{place}: holds several copies of {model.name} ({shown}); give the path of one")
    return copies[0] if copies else None


def _same_shape(file: Path, model: PublishedModel) -> bool:
    """Compare all but rotary positions, whose scaling GGUF stores in another form."""
    shape = read_shape(file, str(file))
    return dataclasses.replace(shape, pattern=model.config.pattern) == model.config
