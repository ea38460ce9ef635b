"""A few steps on a tiny decoder lower its loss; a resumed training gives the same bits."""

from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest

from jaxtrace.lab import training
from jaxtrace.lab.documents import documents
from jaxtrace.lab.settings import DEMO_WORLD, DecoderRecipe
from jaxtrace.lab.shapes import DEMO
from jaxtrace.lab.tokenizer import train_tokenizer
from jaxtrace.lab.training import encode_documents, held_out_loss, pack, train
from jaxtrace.lab.world import World
from jaxtrace.models.decoder import init_params

TINY = replace(
    DEMO.decoder,
    vocab_size=512,
    embed_dim=16,
    num_layers=1,
    num_heads=4,
    kv_heads=2,
    head_dim=4,
    feed_forward=32,
    context=32,
)
RECIPE = DecoderRecipe(steps=4, batch=2, length=32, learning_rate=0.05, warmup=0)


@pytest.fixture(scope="module")
def rows():
    tokenizer = train_tokenizer(islice(documents(World(DEMO_WORLD), 1), 200), TINY.vocab_size)
    return pack(encode_documents(tokenizer, islice(documents(World(DEMO_WORLD), 1), 20)), RECIPE.length)


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    return train(TINY, RECIPE, rows, tmp_path_factory.mktemp("state") / "state")


def test_a_few_steps_reduce_the_loss(rows, trained):
    before = held_out_loss(TINY, init_params(TINY, jax.random.key(RECIPE.seed)), rows)
    assert before == pytest.approx(np.log(TINY.vocab_size), abs=0.1)
    assert held_out_loss(TINY, trained, rows) < before - 0.1


def test_a_resumed_training_gives_the_same_bits(rows, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 2)

    def interrupt(step, _):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, RECIPE, rows, tmp_path / "state", interrupt)
    resumed = train(TINY, RECIPE, rows, tmp_path / "state")
    for ours, expected in zip(jax.tree.leaves(resumed), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(ours, expected)
