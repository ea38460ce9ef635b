"""Shared training loop: batches are a function of the step, and a resumed training gives the same bits."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrace.errors import ConfigError
from jaxtrace.training.loop import batch_at, clipped_adamw, fit
from jaxtrace.training.settings import Recipe

ROWS = np.arange(12, dtype=np.int32).reshape(6, 2)
RECIPE = Recipe(steps=7, batch=2, length=2, learning_rate=0.1, weight_decay=0.01)


def loss(weights, target, batch):
    return jnp.mean((batch @ weights - target) ** 2)


def fit_line(state_file, *, rows=ROWS, recipe=RECIPE, model="line", on_step=lambda *_: None):
    return fit(
        loss,
        jnp.zeros(2),
        jnp.float32(3),
        rows,
        model=model,
        recipe=recipe,
        optimizer=clipped_adamw(optax.linear_schedule(recipe.learning_rate, 0.0, recipe.steps), recipe.weight_decay),
        state_file=state_file,
        save_every=2,
        on_step=on_step,
    )


def test_an_epoch_visits_each_row_once():
    first = np.concatenate([batch_at(ROWS, step, 2, seed=0) for step in range(3)])
    second = np.concatenate([batch_at(ROWS, step, 2, seed=0) for step in range(3, 6)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == ROWS.tolist()
    assert first.tolist() != second.tolist()
    np.testing.assert_array_equal(batch_at(ROWS, 4, 2, seed=0), second[2:4])


def test_a_resumed_training_gives_the_same_bits_and_losses(tmp_path):
    losses, resumed_losses = {}, {}
    weights = fit_line(tmp_path / "whole", on_step=losses.__setitem__)

    def interrupt(step, _):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_line(tmp_path / "parts", on_step=interrupt)
    resumed = fit_line(tmp_path / "parts", on_step=resumed_losses.__setitem__)
    np.testing.assert_array_equal(resumed, weights)
    assert list(losses) == [*range(1, 8)] and resumed_losses == {step: losses[step] for step in (5, 6, 7)}
    assert losses[7] < losses[1]


def test_a_finished_training_is_not_repeated(tmp_path):
    steps = []
    weights = fit_line(tmp_path / "state")
    np.testing.assert_array_equal(fit_line(tmp_path / "state", on_step=lambda step, _: steps.append(step)), weights)
    assert not steps


@pytest.mark.parametrize(
    "changes", [{"model": "other"}, {"rows": ROWS + 1}, {"recipe": RECIPE.model_copy(update={"seed": 1})}], ids=str
)
def test_the_state_of_another_training_is_refused(tmp_path, changes):
    fit_line(tmp_path / "state")
    with pytest.raises(ConfigError, match="is the state of a training of another model, text or recipe; delete it"):
        fit_line(tmp_path / "state", **changes)
