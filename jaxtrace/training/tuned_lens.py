"""Training a tuned lens: each layer's translator learns to say what the last layer says."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from safetensors import safe_open
from safetensors.numpy import save_file

from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import CARD, LensCard, placed, write_lens
from jaxtrace.errors import ConfigError
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, is_stacked
from jaxtrace.models.forward import forward, unembed
from jaxtrace.models.on_mesh import on_mesh_of

if TYPE_CHECKING:
    from jaxtrace.model import Model

STATE = "training.safetensors"
SAVE_EVERY = 25
HELD_OUT = 10  # one sequence of so many is not trained on


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a lens besides its model and text.

    Attributes:
      steps: of the optimiser.
      batch: sequences of a step.
      length: tokens of a sequence.
      learning_rate: at first; it falls to 0 in a line.
      weight_decay: of AdamW, towards the logit lens.
      seed: of the sequences' order, and of which are held out.
    """

    steps: int = 250
    batch: int = 8
    length: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    seed: int = 0


State = tuple[Any, Any]  # translators, and the optimiser's moments
OnStep = Callable[[int, float], None]  # steps done, loss in nats


def tune(
    model: Model,
    ids: Sequence[Int[np.ndarray, " P"]],
    text: str,
    recipe: Recipe,
    directory: Path,
    on_step: OnStep = lambda *_: None,
) -> tuple[LensCard, dict[str, Float[np.ndarray, "S L"]]]:
    """Trains a lens of a model and writes it; what was begun in the directory is gone on with.

    Args:
      model: whose lens it is to be.
      ids: token ids of the texts to train on.
      text: what they are, for the card.
      recipe: how to train.
      directory: of the lens; made if need be.
      on_step: told after each step.

    Returns:
      The card, and the mean KL(final ‖ lens) in nats of every held-out sequence at layers 0 to L − 1, by lens ("logit",
      "tuned").

    Raises:
      ConfigError: a setting is out of range, there is too little text, the directory holds a lens, or a training of
        another kind.
    """
    if (directory / CARD).exists():
        raise ConfigError(f"{directory}: already holds a lens; name another directory")
    recipe = dataclasses.replace(recipe, length=min(recipe.length, model.config.context))
    sequences = cut(ids, recipe)
    order = np.random.default_rng(recipe.seed).permutation(len(sequences))
    held_out, kept = np.split(sequences[order], [max(1, len(sequences) // HELD_OUT)])
    directory.mkdir(parents=True, exist_ok=True)
    with on_mesh_of(model.params):
        translators = train(model, kept, recipe, directory / STATE, on_step)
        lenses = {"logit": placed(Translators.zeros(model.config), model.params), "tuned": translators}
        kl = {name: held_out_kl(model.config, model.params, lens, held_out) for name, lens in lenses.items()}
    card = LensCard(
        model=model.name,
        checkpoint=model.fingerprint(),
        layers=model.config.layers,
        embed=model.config.embed,
        text=text,
        tokens=sequences.size,
        recipe=dataclasses.asdict(recipe),
        held_out=len(held_out),
        kl_logit=tuple(kl["logit"].mean(0).tolist()),
        kl_tuned=tuple(kl["tuned"].mean(0).tolist()),
    )
    write_lens(directory, translators, card)
    (directory / STATE).unlink()
    return card, kl


def cut(ids: Sequence[Int[np.ndarray, " P"]], recipe: Recipe) -> Int[np.ndarray, "n T"]:
    """All texts, one after the other, in sequences of one length; what does not fill the last one is left out.

    Raises:
      ConfigError: a setting is out of range, or they do not fill a batch and what is held out.
    """
    for name in ("steps", "batch", "length"):
        if getattr(recipe, name) < 1:
            raise ConfigError(f"{name}={getattr(recipe, name)} is out of range; give 1 or more")
    joined = np.concatenate([np.asarray(row, np.int32) for row in ids])
    whole = len(joined) // recipe.length
    least = recipe.batch + max(1, whole // HELD_OUT)
    if whole < least:
        raise ConfigError(
            f"{len(joined)} tokens of text make {whole} sequences of {recipe.length}, and a lens needs {least}; "
            "give more text, or a smaller --batch or --length"
        )
    return joined[: whole * recipe.length].reshape(whole, recipe.length)


def train(
    model: Model,
    sequences: Int[np.ndarray, "n T"],
    recipe: Recipe,
    state_file: Path,
    on_step: OnStep = lambda *_: None,
) -> Translators:
    """Trains translators from zero, or from where `state_file` stands, which is rewritten every `SAVE_EVERY` steps.

    A training that was cut off and gone on with gives the same numbers as one that was not.

    Raises:
      ConfigError: `state_file` is of other settings, another text or another model.
    """
    made_of = _made_of(model, recipe, sequences)
    translators = Translators.zeros(model.config)
    first, state = _load(state_file, made_of, (translators, _optimiser(recipe).init(cast(Any, translators))))
    for step in range(first, recipe.steps):
        epoch, place = divmod(step, len(sequences) // recipe.batch)
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(sequences))
        batch = sequences[order[place * recipe.batch :][: recipe.batch]]
        state, loss = _step(model.params, state, batch, config=model.config, recipe=recipe)
        on_step(step + 1, float(loss))
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == recipe.steps:
            _save(state_file, made_of, step + 1, state)
    return state[0]


def kl_by_layer(
    config: DecoderConfig, params: Params, translators: Translators, tokens: Int[Array, "B T"]
) -> Float[Array, "L B T"]:
    """KL(final ‖ lens_l) in nats of the layers 0 to L − 1 at every position; a layer's logits at a time."""
    batch, length = tokens.shape
    cache = empty_cache(config, batch, length, stacked=is_stacked(params), dtype=params["embedding"].dtype)
    start = jnp.zeros(batch, jnp.int32)
    result = forward(config, params, tokens, cache, start, stream=tuple(range(config.layers)))
    final = jax.nn.log_softmax(unembed(config, params, result.hidden))

    @jax.checkpoint
    def of_layer(layer: tuple[Array, Array, Array]) -> Float[Array, "B T"]:
        x, weight, bias = layer
        moved = Translators(weight[None], bias[None])(x[None], (0,))[0]
        lens = jax.nn.log_softmax(unembed(config, params, moved))
        return jnp.sum(jnp.exp(final) * (final - lens), axis=-1)

    return jax.lax.map(of_layer, (result.stream, translators.weight, translators.bias))


def held_out_kl(
    config: DecoderConfig, params: Params, translators: Translators, sequences: Int[np.ndarray, "S T"]
) -> Float[np.ndarray, "S L"]:
    """Mean KL(final ‖ lens_l) in nats of each sequence."""
    found = [_kl(config, params, translators, row[None])[:, 0].mean(-1) for row in sequences]
    return np.asarray(jnp.stack(found), np.float64)


_kl = jax.jit(kl_by_layer, static_argnums=0)


@functools.partial(jax.jit, static_argnames=("config", "recipe"), donate_argnames="state")
def _step(params: Params, state: State, tokens: Array, *, config: DecoderConfig, recipe: Recipe) -> tuple[State, Array]:
    translators, moments = state
    mean = lambda translators: jnp.mean(kl_by_layer(config, params, translators, tokens))  # noqa: E731
    loss, gradient = jax.value_and_grad(mean)(translators)
    update, moments = _optimiser(recipe).update(gradient, moments, translators)
    return (optax.apply_updates(translators, update), moments), loss


def _optimiser(recipe: Recipe) -> optax.GradientTransformation:
    rate = optax.linear_schedule(recipe.learning_rate, 0.0, recipe.steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=recipe.weight_decay))


def _made_of(model: Model, recipe: Recipe, sequences: Int[np.ndarray, "n T"]) -> dict[str, str]:
    digest = hashlib.sha256(sequences.tobytes()).hexdigest()
    return {
        "config": repr(model.config),
        "checkpoint": model.fingerprint(),
        "recipe": repr(recipe),
        "sequences": digest,
    }


def _save(path: Path, made_of: dict[str, str], step: int, state: State) -> None:
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    unfinished = path.with_suffix(".partial")
    save_file(leaves, unfinished, metadata=made_of | {"step": str(step)})
    unfinished.replace(path)


def _load(path: Path, made_of: dict[str, str], fresh: State) -> tuple[int, State]:
    if not path.exists():
        return 0, fresh
    with safe_open(path, framework="numpy") as saved:
        metadata = saved.metadata()
        step = int(metadata.pop("step"))
        if metadata != made_of:
            raise ConfigError(
                f"{path}: left by a training of another model, text or settings; remove it, or name another directory"
            )
        leaves, structure = jax.tree.flatten(fresh)
        restored: list[Any] = [jnp.asarray(saved.get_tensor(str(i))) for i in range(len(leaves))]
    return step, jax.tree.unflatten(structure, restored)
