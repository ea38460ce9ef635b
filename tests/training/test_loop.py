"""Shared training loop: batches are a function of the step, and a resumed training gives the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save

from jaxtrace.errors import ConfigError
from jaxtrace.training.loop import batch_at, clipped_adamw, fit, load_state, save_state
from jaxtrace.training.settings import Recipe
from tests.training.kills import states_of_kills

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


def test_training_killed_at_any_step_of_a_save_resumes_with_the_same_bits(tmp_path):
    recipe = RECIPE.model_copy(update={"steps": 3})
    (tmp_path / "killed").mkdir()
    with states_of_kills(tmp_path / "killed", tmp_path / "copies") as copies:
        weights = fit_line(tmp_path / "killed" / "state", recipe=recipe)
    contents = [sorted(path.name for path in copy.glob("*")) for copy in copies]
    assert [".state.tmp"] in contents and [".state.tmp", "state"] in contents and len(copies) >= 5
    for copy in copies:
        copy.mkdir(parents=True, exist_ok=True)
        np.testing.assert_array_equal(fit_line(copy / "state", recipe=recipe), weights)


IDENTITY = {"model": "line", "recipe": "short", "rows": "none"}
STATE = ({"weights": jnp.arange(5.0)}, (jnp.int32(3), jnp.ones((2, 2))))


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Content of the file of a state."""
    path = tmp_path_factory.mktemp("state") / "state"
    save_state(path, IDENTITY, 12, STATE)
    return path.read_bytes()


def loaded(path, content):
    """Load a file as a state; assert that it is left as it is, and that an error is one line that says what to do."""
    path.write_bytes(content)
    try:
        return load_state(path, IDENTITY, STATE)
    except ConfigError as error:
        assert str(error).startswith(f"{path}: is ") and "delete it" in str(error) and "\n" not in str(error)
        return None
    finally:
        assert path.read_bytes() == content


def test_state_is_read_back(content, tmp_path):
    step, state = loaded(tmp_path / "state", content)
    assert step == 12
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(STATE), strict=True):
        np.testing.assert_array_equal(got, want)


def test_flipped_bits_of_a_state_are_noticed(content, tmp_path):
    """A bit that changes no value, such as one of the padding of the header, may be flipped."""
    read = 0
    for place in range(0, 8 * len(content), 29):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        if (result := loaded(tmp_path / "state", bytes(flipped))) is not None:
            read += 1
            assert result[0] == 12 and all(map(np.array_equal, jax.tree.leaves(result[1]), jax.tree.leaves(STATE)))
    assert read < 5


@pytest.mark.parametrize("count", [0, 1, 7, 8, 100, -1])
def test_truncated_state_is_refused(content, tmp_path, count):
    assert loaded(tmp_path / "state", content[:count]) is None


def test_foreign_files_are_refused(tmp_path):
    path, arrays = tmp_path / "state", {"0": np.ones(3, np.float32)}
    for metadata in (None, {"step": "x"}, {"step": "1"}, IDENTITY, IDENTITY | {"step": "1"}):
        assert loaded(path, save(arrays, metadata)) is None
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=f"^{path}: is no readable state of a training .not a regular file"):
        load_state(path, IDENTITY, STATE)


def test_state_without_a_checksum_is_read(content, tmp_path):
    """Trainings of jaxtrace 0.2 go on."""
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(STATE))}
    assert loaded(tmp_path / "state", save(leaves, IDENTITY | {"step": "12"}))[0] == 12
