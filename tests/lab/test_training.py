"""A few steps on a tiny decoder lower its loss."""

from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest

from jaxtrace.lab.documents import documents
from jaxtrace.lab.settings import DEMO_WORLD, DecoderRecipe
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.tokenizer import train_tokenizer
from jaxtrace.lab.training import encode_documents, held_out_loss, pack, train
from jaxtrace.lab.world import World
from jaxtrace.models.decoder import init_params

TINY = replace(Shape(family="llama", layers=1, width=32, vocab=512).decoder, context=32)
RECIPE = DecoderRecipe(steps=4, batch=2, length=32, learning_rate=0.05, warmup=0)


def test_a_few_steps_reduce_the_loss(tmp_path):
    tokenizer = train_tokenizer(islice(documents(World(DEMO_WORLD), 1), 200), TINY.vocab_size)
    rows = pack(encode_documents(tokenizer, islice(documents(World(DEMO_WORLD), 1), 20)), RECIPE.length)
    before = held_out_loss(TINY, init_params(TINY, jax.random.key(RECIPE.seed)), rows)
    assert before == pytest.approx(np.log(TINY.vocab_size), abs=0.1)
    assert held_out_loss(TINY, train(TINY, RECIPE, rows, tmp_path / "state"), rows) < before - 0.1
