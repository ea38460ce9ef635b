"""A tuned lens on the disk: its translators, and a card that says which model they are of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from jaxtrace.engine.translators import Translators
from jaxtrace.errors import CheckpointError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.parallel.sharding import ShardingRules

CARD, TENSORS = "lens.json", "lens.safetensors"


class LensCard(BaseModel):
    """What a tuned lens is of, and how it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model: str = Field(description="its name, as it was loaded")
    checkpoint: str = Field(description="SHA-256 of the model's config and weights")
    layers: int
    embed: int
    text: str = Field(description="what it was trained on")
    tokens: int = Field(description="of the text, those held out included")
    recipe: dict[str, float] = Field(description="settings of the training")
    held_out: int = Field(description="sequences that kl is over")
    kl_logit: tuple[float, ...] = Field(description="mean KL(final ‖ logit lens) of layers 0 to L − 1, nats")
    kl_tuned: tuple[float, ...] = Field(description="mean KL(final ‖ tuned lens) of the same")


@dataclass(frozen=True)
class TunedLens:
    """A tuned lens that was read.

    Attributes:
      card: of it.
      translators: in the parameters' dtype, where the parameters are.
      hash: SHA-256 of their file.
    """

    card: LensCard
    translators: Translators
    hash: str


def write_lens(directory: Path, translators: Translators, card: LensCard) -> None:
    """Writes lens.safetensors and, last, lens.json into a directory that is there."""
    save_file({name: np.asarray(x, np.float32) for name, x in vars(translators).items()}, directory / TENSORS)
    (directory / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_lens(directory: str | Path, name: str, fingerprint: str, config: DecoderConfig, params: Params) -> TunedLens:
    """The tuned lens of a model.

    Args:
      directory: that `write_lens` wrote.
      name, fingerprint, config, params: of the model.

    Raises:
      CheckpointError: there is none, it is damaged, or of another model.
    """
    place = Path(directory)
    card = _card(place / CARD)
    if card.checkpoint != fingerprint:
        raise CheckpointError(
            f"{place}: is a tuned lens of {card.model} ({card.layers} layers of width {card.embed}), whose weights are "
            f"not those of {name}; train one of its own with `jaxtrace tuned-lens`"
        )
    path = place / TENSORS
    try:
        raw = path.read_bytes()
        tensors = load(raw)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); train the lens again") from None
    shapes = {name: list(x.shape) for name, x in vars(jax.eval_shape(lambda: Translators.zeros(config))).items()}
    found = {name: list(x.shape) for name, x in tensors.items()}
    if found != shapes or any(x.dtype != np.float32 for x in tensors.values()):
        raise CheckpointError(f"{path}: holds {found}, and {name} needs {shapes} in float32; train a lens of its own")
    translators: Any = tensors
    return TunedLens(card, placed(Translators(**translators), params), hashlib.sha256(raw).hexdigest())


def placed(translators: Translators, params: Params) -> Translators:
    """Translators in the parameters' dtype and where these are: on a mesh, each A_l split by its rows."""
    like = params["embedding"]

    def place(x: Any) -> Any:
        host = np.asarray(x).astype(like.dtype)
        if not isinstance(like.sharding, NamedSharding):
            return jax.device_put(host, like.sharding if like.committed else None)
        mesh = like.sharding.mesh
        assert isinstance(mesh, Mesh)
        spec = ShardingRules().spec((None, "feed_forward", None)[: host.ndim], host.shape, mesh)
        return jax.make_array_from_callback(host.shape, NamedSharding(mesh, spec), lambda at: host[at])

    return jax.tree.map(place, translators)


def _card(path: Path) -> LensCard:
    try:
        return LensCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        raise CheckpointError(f"{path.parent}: holds no {CARD}; train a lens with `jaxtrace tuned-lens`") from None
    except (ValidationError, ValueError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CheckpointError(f"{path}: does not describe a tuned lens ({what}); train it again") from None
