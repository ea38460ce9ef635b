"""A training of a small model that is killed, from its first save to its card."""

import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from jaxtrace.errors import ConfigError, StoreError
from jaxtrace.files import LOCK, write_atomically
from jaxtrace.lab import train as lab
from jaxtrace.lab.settings import LAB_RECIPE, LAB_WORLD
from jaxtrace.lab.shapes import Shape
from jaxtrace.lock import WriteLock
from jaxtrace.training.loop import STATE, clipped_adamw, fit
from tests.training.kills import states_of_kills

RECIPE = LAB_RECIPE.model_copy(update={"steps": 2, "batch": 2, "length": 2})
ROWS = np.arange(12, dtype=np.int32).reshape(6, 2)


@pytest.fixture
def run(monkeypatch):
    """Return a function that trains a line in place of a decoder, and writes the files of a model: run(directory)."""

    def train(config, recipe, rows, state_file, on_step):
        return fit(
            lambda weights, _, batch: jnp.mean((batch @ weights - 3) ** 2),
            jnp.zeros(2),
            (),
            rows,
            model="line",
            recipe=recipe,
            optimizer=clipped_adamw(optax.constant_schedule(0.1), 0.01),
            state_file=state_file,
            save_every=2,
            on_step=on_step,
        )

    def save_checkpoint(directory, shape, params):
        write_atomically(directory / lab.WEIGHTS, np.asarray(params).tobytes())

    parts = {
        "documents": lambda *_: [],
        "train_tokenizer": lambda *_: None,
        "encode_documents": lambda *_: [],
        "pack": lambda *_: ROWS,
        "train": train,
        "held_out_loss": lambda *_: 0.5,
        "save_checkpoint": save_checkpoint,
        "save_tokenizer": lambda tokenizer, directory, _: write_atomically(directory / "tokenizer.json", "{}"),
        "load": lambda _: None,
        "quiz": lambda *_: None,
        "card_text": lambda *_, loss, **__: f"loss {loss}",
    }
    for name, part in parts.items():
        monkeypatch.setattr(lab, name, part)
    shape = Shape(family="llama")
    return lambda out: lab.run(out, shape, LAB_WORLD, RECIPE, "train", Console(quiet=True))


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_training_killed_at_any_step_gives_the_same_files(run, tmp_path):
    with states_of_kills(tmp_path / "model", tmp_path / "copies") as copies:
        run(tmp_path / "model")
    finished = files(tmp_path / "model")
    assert finished.keys() == {"README.md", lab.WEIGHTS, "tokenizer.json", "world.json"}
    unfinished = [copy for copy in copies if not copy.exists() or files(copy).keys() - {LOCK} != finished.keys()]
    assert len(copies) - len(unfinished) <= 2 and len(unfinished) > 10
    assert {LOCK, f".{STATE}.tmp"} in [files(copy).keys() for copy in unfinished if copy.exists()]
    for copy in unfinished:
        run(copy)
        assert files(copy) == finished


def test_damaged_state_is_refused_and_nothing_is_lost(run, tmp_path):
    (tmp_path / STATE).write_bytes(b"damaged")
    (tmp_path / "config.json").write_text("mine")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=f"{STATE}: is no readable state of a training .*; restore it") as error:
        run(tmp_path)
    assert "\n" not in str(error.value) and files(tmp_path) == before


def test_second_training_in_a_directory_is_refused(run, tmp_path):
    with WriteLock(tmp_path), pytest.raises(StoreError, match="has been writing it since"):
        run(tmp_path)
    run(tmp_path)
    shutil.copy(tmp_path / "README.md", tmp_path / STATE)
    with pytest.raises(ConfigError, match="is no readable state of a training"):
        run(tmp_path)
