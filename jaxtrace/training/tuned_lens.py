"""Trains a tuned lens: each layer's translator learns to predict what the last layer predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import CARD, LensCard, place_translators, write_lens
from jaxtrace.errors import ConfigError
from jaxtrace.kernels.moments import cross_terms
from jaxtrace.lock import WriteLock
from jaxtrace.model import Model
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, is_stacked
from jaxtrace.models.forward import forward, unembed
from jaxtrace.models.on_mesh import use_mesh_of
from jaxtrace.training.loop import STATE, OnStep, clipped_adamw, fit
from jaxtrace.training.settings import LensRecipe
from jaxtrace.training.text_split import split_by_text

SAVE_EVERY = 25  # steps


def tune(
    model: Model,
    ids: Sequence[Int[np.ndarray, " P"]],
    text: str,
    recipe: LensRecipe,
    directory: Path,
    on_step: OnStep = lambda *_: None,
) -> tuple[LensCard, dict[str, Float[np.ndarray, "S L"]]]:
    """Train a lens of a model and write it; resume a training that was interrupted in the same directory.

    Args:
      ids: texts as token ids; no text is both trained on and held out.
      text: name of the training texts, for the card.
      directory: directory of the lens; created if missing.

    Returns:
      The card, and the mean KL(final ‖ lens) in nats of every held-out sequence at layers 0 to L − 1, by lens ("logit",
      "tuned").

    Raises:
      ConfigError: there is too little text, or one text alone, or the directory holds a lens, a damaged state or that
        of another training.
      StoreError: another program is writing the directory.
    """
    with WriteLock(directory):
        return _tune(model, ids, text, recipe, directory, on_step)


def _tune(
    model: Model,
    ids: Sequence[Int[np.ndarray, " P"]],
    text: str,
    recipe: LensRecipe,
    directory: Path,
    on_step: OnStep,
) -> tuple[LensCard, dict[str, Float[np.ndarray, "S L"]]]:
    if (directory / CARD).exists() and not (directory / STATE).exists():  # the state is deleted last
        raise ConfigError(f"{directory}: already holds a lens; name another directory")
    recipe = recipe.model_copy(update={"length": min(recipe.length, model.config.context)})
    split = split_by_text(ids, recipe, model.tokenizer)
    with use_mesh_of(model.params):
        translators = train(model, split.training, recipe, directory / STATE, on_step)
        logit_lens = place_translators(Translators.zeros(model.config), model.params)
        lenses = {"logit": logit_lens, "tuned": translators}
        kl = {name: held_out_kl(model.config, model.params, lens, split.held_out) for name, lens in lenses.items()}
    card = LensCard(
        model=model.name,
        checkpoint=model.fingerprint(),
        layers=model.config.num_layers,
        embed=model.config.embed_dim,
        text=text,
        tokens=split.training.size + split.held_out.size,
        texts=split.texts,
        held_out_texts=split.held_out_texts,
        recipe=recipe.model_dump(),
        held_out=len(split.held_out),
        kl_logit=tuple(kl["logit"].mean(0).tolist()),
        kl_tuned=tuple(kl["tuned"].mean(0).tolist()),
    )
    write_lens(directory, translators, card)
    (directory / STATE).unlink()
    return card, kl


def train(
    model: Model,
    sequences: Int[np.ndarray, "n T"],
    recipe: LensRecipe,
    state_file: Path,
    on_step: OnStep = lambda *_: None,
) -> Translators:
    """Train translators, starting from the logit lens or from the state in `state_file`; see `fit`."""

    def loss(translators: Translators, params: Params, tokens: Int[Array, "B T"]) -> Float[Array, ""]:
        return jnp.mean(kl_by_layer(model.config, params, translators, tokens))

    return fit(
        loss,
        Translators.zeros(model.config),
        model.params,
        sequences,
        model=f"{model.config} {model.fingerprint()}",
        recipe=recipe,
        optimizer=clipped_adamw(
            optax.linear_schedule(recipe.learning_rate, 0.0, recipe.steps), weight_decay=recipe.weight_decay
        ),
        state_file=state_file,
        save_every=SAVE_EVERY,
        on_step=on_step,
    )


def kl_by_layer(
    config: DecoderConfig, params: Params, translators: Translators, tokens: Int[Array, "B T"]
) -> Float[Array, "L B T"]:
    """Return KL(final ‖ lens_l) in nats of layers 0 to L − 1 at every position.

    Only one layer's logits are in memory at a time, in the backward pass too.
    """
    batch, length = tokens.shape
    cache = empty_cache(config, batch, length, stacked=is_stacked(params), dtype=params["embedding"].dtype)
    start = jnp.zeros(batch, jnp.int32)
    result = forward(config, params, tokens, cache, start, stream=tuple(range(config.num_layers)))
    final = jax.nn.log_softmax(unembed(config, params, result.hidden))

    @jax.checkpoint
    def layer_kl(layer: tuple[Array, Array, Array]) -> Float[Array, "B T"]:
        x, weight, bias = layer
        translated = Translators(weight[None], bias[None])(x[None], (0,))[0]
        lens = jax.nn.log_softmax(unembed(config, params, translated))
        absent, lens_absent = jnp.isneginf(final), jnp.isneginf(lens)
        lens = jnp.where(lens_absent, 0.0, lens)  # −∞ would make the gradient NaN
        terms = cross_terms(jnp.exp(final), final, lens, absent, lens_absent)
        return jnp.sum(terms, axis=-1)

    return jax.lax.map(layer_kl, (result.stream, translators.weight, translators.bias))


def held_out_kl(
    config: DecoderConfig, params: Params, translators: Translators, sequences: Int[np.ndarray, "S T"]
) -> Float[np.ndarray, "S L"]:
    """Return the mean KL(final ‖ lens_l) in nats over the positions of each sequence."""
    means = [_kl_by_layer(config, params, translators, row[None])[:, 0].mean(-1) for row in sequences]
    return np.asarray(jnp.stack(means), np.float64)


_kl_by_layer = jax.jit(kl_by_layer, static_argnums=0)
