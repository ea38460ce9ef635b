"""A few steps on a tiny model: the loss falls, a cut run goes on."""

import io
from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxtrace.errors import ConfigError
from jaxtrace.lab import training
from jaxtrace.lab.data import encode_documents, pack
from jaxtrace.lab.documents import documents
from jaxtrace.lab.settings import DEMO_WORLD
from jaxtrace.lab.tokenizer import train_tokenizer
from jaxtrace.lab.train import DEMO
from jaxtrace.lab.training import Recipe, held_out_loss, train
from jaxtrace.lab.world import World
from jaxtrace.models.decoder import init_params

TINY = replace(
    DEMO.decoder,
    vocab=512,
    embed=16,
    layers=1,
    heads=4,
    kv_heads=2,
    head_dim=4,
    feed_forward=32,
    context=32,
)
RECIPE = Recipe(steps=4, batch=2, length=32, learning_rate=0.05, warmup=0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(islice(documents(World(DEMO_WORLD), 1), 200), TINY.vocab)


@pytest.fixture(scope="module")
def rows(tokenizer):
    return pack(encode_documents(tokenizer, islice(documents(World(DEMO_WORLD), 1), 20)), RECIPE.length)


@pytest.fixture
def console():
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    return train(TINY, RECIPE, rows, tmp_path_factory.mktemp("state") / "state.npz", Console(file=io.StringIO()))


def test_a_few_steps_reduce_the_loss(rows, trained):
    before = held_out_loss(TINY, init_params(TINY, jax.random.key(RECIPE.seed)), rows)
    assert before == pytest.approx(np.log(TINY.vocab), abs=0.1)
    assert held_out_loss(TINY, trained, rows) < before - 0.1


def test_a_resumed_run_ends_where_an_unbroken_one_does(rows, trained, console, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    state_file = tmp_path / "state.npz"
    save = training._save_state

    def save_once_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save_state", save_once_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, RECIPE, rows, state_file, console)
    monkeypatch.setattr(training, "_save_state", save)
    with pytest.raises(ConfigError, match="other options"):
        train(TINY, replace(RECIPE, seed=1), rows, state_file, console)
    resumed = train(TINY, RECIPE, rows, state_file, console)
    for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
