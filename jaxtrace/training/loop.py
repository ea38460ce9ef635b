"""One resumable training loop: AdamW steps over shuffled rows, whose state is saved every few steps."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxtrace.errors import ConfigError, first_line
from jaxtrace.files import write_atomically
from jaxtrace.memory import format_bytes, memory_errors
from jaxtrace.training.settings import Recipe

STATE = "training.safetensors"  # file name of the state of an unfinished training

Trained = TypeVar("Trained")
Loss = Callable[[Trained, Any, Int[Array, "B T"]], Float[Array, ""]]  # (trained parameters, constants, batch) → nats
OnStep = Callable[[int, float], None]  # (number of finished steps, loss in nats)
State = tuple[Any, optax.OptState]  # trained parameters and AdamW's moments


def fit(
    loss: Loss[Trained],
    initial: Trained,
    constants: Any,
    rows: Int[np.ndarray, "n T"],
    *,
    model: str,
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    state_file: Path,
    save_every: int,
    on_step: OnStep = lambda *_: None,
) -> Trained:
    """Train parameters from their initial values, or from the state in `state_file`.

    A resumed training gives the same bits as an uninterrupted one.

    Args:
      initial: initial parameters, a pytree; its buffers are donated.
      constants: pytree of arrays that the loss also reads, such as the parameters of a frozen model.
      rows: training text, one sequence of token ids per row.
      model: identity of the trained model; a state of another model is refused.
      state_file: safetensors file of the state, written every `save_every` steps and after the last one.

    Raises:
      ConfigError: `state_file` is damaged, or belongs to a training of another model, text or recipe.
      OutOfMemoryError: a step does not fit the memory.
    """
    identity = {"model": model, "recipe": repr(recipe), "rows": hashlib.sha256(rows.tobytes()).hexdigest()}

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: State, constants: Any, batch: Int[Array, "B T"]) -> tuple[State, Float[Array, ""]]:
        trained, moments = state
        value, gradient = jax.value_and_grad(loss)(trained, constants, batch)
        change, moments = optimizer.update(gradient, moments, trained)
        return (optax.apply_updates(trained, change), moments), value

    def describe(asked: str) -> str:
        trained = format_bytes(sum(leaf.nbytes for leaf in jax.tree.leaves(initial)))
        return (
            f"training: out of memory: {trained} of parameters are trained on {recipe.batch} sequences of "
            f"{recipe.length} tokens{asked}; lower batch (--batch) or length (--length)"
        )

    with memory_errors(describe):
        state: State = (initial, optimizer.init(initial))  # pyright: ignore[reportArgumentType]: any pytree will do
        first, state = load_state(state_file, identity, state)
        for step in range(first, recipe.steps):
            state, value = update(state, constants, batch_at(rows, step, recipe.batch, recipe.seed))
            finished = step + 1
            if finished % save_every == 0 or finished == recipe.steps:
                save_state(state_file, identity, finished, state)
            on_step(finished, float(value))
    return state[0]


def clipped_adamw(schedule: optax.Schedule, weight_decay: float, b2: float = 0.999) -> optax.GradientTransformation:
    """Return AdamW on gradients that are clipped to a global norm of 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=b2, weight_decay=weight_decay))


def batch_at(rows: Int[np.ndarray, "n T"], step: int, batch: int, seed: int) -> Int[np.ndarray, "B T"]:
    """Return the batch of a training step: a pure function of the step, so that a resumed training sees the same data.

    Rows are reshuffled every epoch; an epoch drops the rows that do not fill its last batch.
    """
    epoch, index = divmod(step, len(rows) // batch)
    order = np.random.default_rng((seed, epoch)).permutation(len(rows))
    return rows[order[index * batch : (index + 1) * batch]]


def save_state(path: Path, identity: dict[str, str], step: int, state: State) -> None:
    """Write the state after `step` steps, with the identity of its training."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    metadata = identity | {"step": str(step), "sha256": _digest(step, leaves)}
    write_atomically(path, save({str(i): leaf for i, leaf in enumerate(leaves)}, metadata))


def load_state(path: Path, identity: dict[str, str], initial: State) -> tuple[int, State]:
    """Return the number of finished steps and the state after them: 0 and `initial` if there is no file.

    Raises:
      ConfigError: the file is damaged or no such state, or belongs to another training; it is left as it is.
    """
    if not path.exists():
        return 0, initial
    expected = jax.tree.leaves(initial)
    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            step, digest = int(metadata.pop("step")), metadata.pop("sha256", None)  # jaxtrace 0.2 wrote no digest
            if metadata != identity:
                raise ConfigError(
                    f"{path}: is the state of a training of another model, text or recipe; "
                    "delete it, or name another directory"
                )
            leaves = [file.get_tensor(str(i)) for i in range(len(expected))]
        if digest is not None and digest != _digest(step, leaves):
            raise ValueError("its checksum differs")
        if [(x.shape, x.dtype) for x in leaves] != [(x.shape, x.dtype) for x in expected]:
            raise ValueError("its arrays are not those of this training")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        reason = "it has no step" if isinstance(error, KeyError) else first_line(error)
        raise ConfigError(
            f"{path}: is no readable state of a training ({reason}); restore it from a copy, delete it to train from "
            "the start, or name another directory"
        ) from None
    return step, jax.tree.unflatten(jax.tree.structure(initial), [jnp.asarray(leaf) for leaf in leaves])


def _digest(step: int, leaves: Sequence[np.ndarray]) -> str:
    """Return the SHA-256 of a state: a flipped bit in the file changes it."""
    digest = hashlib.sha256(str(step).encode())
    for leaf in leaves:
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()
