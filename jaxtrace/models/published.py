"""Published models by name: configs and parameter counts, without network access."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from jaxtrace.errors import CheckpointError
from jaxtrace.files import path_exists
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.published_sizes import SIZES
from jaxtrace.settings.validation import did_you_mean


@dataclass(frozen=True)
class PublishedModel:
    """One published model.

    Attributes:
      family: name of the family for people.
      hub_id: hub id of the checkpoint.
      parameters: number of parameters; tied embeddings count once, only Llama 3.2 Vision counts its image encoder, and
        weights that no layer uses do not count.
      raw: attributes of config.json that differ from the family's defaults.
      name: short name in lower case.
    """

    family: str
    hub_id: str
    parameters: int
    raw: dict[str, Any]
    name: str = ""

    @functools.cached_property
    def config(self) -> DecoderConfig:
        """Config of the decoder."""
        return FAMILIES[self.raw["model_type"]].decoder_config(self.raw, self.hub_id)


def find_published(name: str) -> PublishedModel | None:
    """Find a published model by short name, its unambiguous beginning or hub id, in any case; None if there is none."""
    exact = [model for model in PUBLISHED if name.lower() in (model.name, model.hub_id.lower())]
    matches = exact or [model for model in PUBLISHED if model.name.startswith(f"{name.lower()}-")]
    return matches[0] if len(matches) == 1 else None


def looks_like_hub_id(name: str) -> bool:
    """Return whether a name that is no directory here may be a hub id."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def check_model_name(name: str) -> None:
    """Raise CheckpointError if a name is no path here, no published model and cannot be a hub id."""
    if name.lower().endswith(".gguf") and not path_exists(name):
        raise CheckpointError(f"{name}: no such file; correct the path")
    if not path_exists(name) and find_published(name) is None and not looks_like_hub_id(name):
        nearest = did_you_mean(name, [model.name for model in PUBLISHED])
        raise CheckpointError(f"{name}: no such directory{nearest}give a checkpoint directory, a hub id, or 'demo'")


def published_shape(name: str) -> DecoderConfig | None:
    """Return the decoder config of a short name or hub id, also of instruction-tuned models; None if unknown."""
    short = name.lower().rpartition("/")[2]
    model = find_published(name) or find_published(short) or find_published(re.sub("-(instruct|it)$", "", short))
    return None if model is None else model.config


PUBLISHED = tuple(
    PublishedModel(family, hub_id, parameters, raw, hub_id.split("/")[1].lower().removesuffix("-pt"))
    for family, sizes in SIZES.items()
    for hub_id, parameters, raw in sizes
)
