"""Files of a tuned lens: its translators, and a card that names its model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from jaxtrace.documents import MIB, read_bytes, read_model
from jaxtrace.engine.translators import Translators
from jaxtrace.errors import CheckpointError
from jaxtrace.files import atomic_file
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.parallel.sharding import ShardingRules

CARD, TENSORS = "lens.json", "lens.safetensors"


class LensCard(BaseModel):
    """Description of a tuned lens: its model, its training and its quality."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model: str = Field(description="Name under which the model was loaded.")
    checkpoint: str = Field(description="SHA-256 of the model's config and weights.")
    layers: int = Field(description="Number of translated layers, L: the embedding and all but the last.")
    embed: int = Field(description="Width of the residual stream.")
    text: str = Field(description="Name of the training texts.")
    tokens: int = Field(description="Number of tokens in the texts, held-out ones included.")
    recipe: dict[str, float] = Field(description="Settings of the training.")
    held_out: int = Field(description="Number of held-out sequences.")
    texts: int | None = Field(None, description="Number of different texts; None if it was not counted.")
    held_out_texts: int | None = Field(None, description="Number of different texts that are held out.")
    kl_logit: tuple[float, ...] = Field(description="Mean held-out KL(final ‖ logit lens) of layers 0 to L − 1, nats.")
    kl_tuned: tuple[float, ...] = Field(description="Mean held-out KL(final ‖ tuned lens) of layers 0 to L − 1, nats.")


@dataclass(frozen=True)
class TunedLens:
    """A tuned lens in memory.

    Attributes:
      card: its card.
      translators: its translators, in the dtype of the model's parameters and on their devices.
      hash: SHA-256 of lens.safetensors.
    """

    card: LensCard
    translators: Translators
    hash: str


def write_lens(directory: Path, translators: Translators, card: LensCard) -> None:
    """Write lens.safetensors and lens.json into an existing directory, or neither."""
    tensors = {name: np.asarray(x, np.float32) for name, x in vars(translators).items()}
    with atomic_file(directory / CARD) as text, atomic_file(directory / TENSORS) as weights:
        weights.write(save(tensors))
        text.write(f"{card.model_dump_json(indent=2)}\n".encode())


def read_lens(directory: str | Path, name: str, fingerprint: str, config: DecoderConfig, params: Params) -> TunedLens:
    """Read the tuned lens of a model.

    Args:
      directory: directory that `write_lens` wrote.
      name: name of the model, for error messages.
      fingerprint: SHA-256 of the model's config and weights.
      config: config of the model.
      params: parameters of the model.

    Raises:
      CheckpointError: the directory holds no lens, a damaged one, or one of another model.
    """
    directory = Path(directory)
    card = _read_card(directory / CARD)
    if card.checkpoint != fingerprint:
        raise CheckpointError(
            f"{directory}: is a tuned lens of {card.model} ({card.layers} layers of width {card.embed}), whose weights "
            f"are not those of {name}; train a lens of {name} with `jaxtrace tuned-lens`"
        )
    path = directory / TENSORS
    shapes = vars(jax.eval_shape(lambda: Translators.zeros(config)))
    expected = {name: list(x.shape) for name, x in shapes.items()}
    most = MIB + sum(4 * x.size for x in shapes.values())  # a header and float32
    content = read_bytes(path, most, CheckpointError, "train the lens again")
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); train the lens again") from None
    stored = {name: list(x.shape) for name, x in tensors.items()}
    if stored != expected or any(x.dtype != np.float32 for x in tensors.values()):
        raise CheckpointError(f"{path}: holds {stored}, and {name} needs {expected} in float32; train the lens again")
    host: Any = tensors
    return TunedLens(card, place_translators(Translators(**host), params), hashlib.sha256(content).hexdigest())


def place_translators(translators: Translators, params: Params) -> Translators:
    """Return translators in the parameters' dtype and on their devices; a mesh splits each A_l by its rows."""
    like = params["embedding"]

    def place(x: Any) -> Any:
        host = np.asarray(x).astype(like.dtype)
        if not isinstance(like.sharding, NamedSharding):
            return jax.device_put(host, like.sharding if like.committed else None)
        mesh = like.sharding.mesh
        assert isinstance(mesh, Mesh)
        spec = ShardingRules().spec((None, "feed_forward", None)[: host.ndim], host.shape, mesh)
        return jax.make_array_from_callback(host.shape, NamedSharding(mesh, spec), lambda index: host[index])

    return jax.tree.map(place, translators)


def _read_card(path: Path) -> LensCard:
    if not path.exists():
        raise CheckpointError(f"{path.parent}: holds no {CARD}; train a lens with `jaxtrace tuned-lens`")
    return read_model(LensCard, path, CheckpointError, "does not describe a tuned lens", "train it again")
