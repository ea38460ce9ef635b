"""Packs documents into rows of tokens, and trains a decoder on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from tokenizers import Tokenizer

from jaxtrace.lab.settings import DecoderRecipe
from jaxtrace.lab.tokenizer import EOS_ID, PAD_ID
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, init_params
from jaxtrace.models.forward import forward_logits
from jaxtrace.training.loop import OnStep, clipped_adamw, fit

SAVE_EVERY = 100  # steps


def encode_documents(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """Return the token ids of each document, `<s> ... </s>`."""
    return [[*encoding.ids, EOS_ID] for encoding in tokenizer.encode_batch(list(texts))]


def pack(documents: Iterable[Sequence[int]], length: int, open_rows: int = 16) -> Int[np.ndarray, "n T"]:
    """Pack whole documents into rows of `length` tokens, first fit, padded at the end.

    Every row begins with a document, as a prompt does.

    Args:
      documents: token ids of each document; one longer than a row is cut.
      open_rows: number of unfinished rows to try a document in; beyond it the fullest row is closed.

    Returns:
      int32 rows, padded with `PAD_ID`.
    """
    closed: list[list[int]] = []
    rows: list[list[int]] = []
    for document in documents:
        piece = list(document[:length])
        row = next((row for row in rows if len(row) + len(piece) <= length), None)
        if row is not None:
            row.extend(piece)
            continue
        if len(rows) == open_rows:
            rows.sort(key=len)
            closed.append(rows.pop())
        rows.append(piece)
    closed.extend(rows)
    packed = np.full((len(closed), length), PAD_ID, np.int32)
    for index, row in enumerate(closed):
        packed[index, : len(row)] = row
    return packed


def loss_fn(config: DecoderConfig, params: Params, rows: Int[Array, "B T"]) -> Float[Array, ""]:
    """Return the mean next-token cross-entropy in nats, without padding."""
    logits = forward_logits(config, params, rows[:, :-1])
    targets = rows[:, 1:]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses.mean(where=targets != PAD_ID)


def train(
    config: DecoderConfig,
    recipe: DecoderRecipe,
    rows: Int[np.ndarray, "n T"],
    state_file: Path,
    on_step: OnStep = lambda *_: None,
) -> Params:
    """Train a decoder, starting from random float32 weights or from the state in `state_file`; see `fit`."""
    peak, warmup = recipe.learning_rate, min(recipe.warmup, recipe.steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, recipe.steps, peak / 20)
    return fit(
        lambda params, _, batch: loss_fn(config, params, batch),
        init_params(config, jax.random.key(recipe.seed)),
        (),
        rows,
        model=repr(config),
        recipe=recipe,
        optimizer=clipped_adamw(schedule, recipe.weight_decay, b2=0.98),
        state_file=state_file,
        save_every=SAVE_EVERY,
        on_step=on_step,
    )


def held_out_loss(config: DecoderConfig, params: Params, rows: Int[np.ndarray, "n T"], batch: int = 8) -> float:
    """Return the mean next-token cross-entropy in nats over all tokens of `rows`."""
    evaluate = jax.jit(loss_fn, static_argnums=0)
    parts = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    weights = [(part[:, 1:] != PAD_ID).sum() for part in parts]
    return float(np.average([float(evaluate(config, params, part)) for part in parts], weights=weights))
