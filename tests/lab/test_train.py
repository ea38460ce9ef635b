"""A few steps on a tiny model: the loss falls, a cut run goes on, the checkpoint loads."""

import io
import json
from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest
from rich.console import Console
from tokenizers import Tokenizer

from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.errors import ConfigError
from jaxtrace.lab import train as lab_train
from jaxtrace.lab.data import encode_documents, pack
from jaxtrace.lab.embedded import demo_path
from jaxtrace.lab.export import save_checkpoint
from jaxtrace.lab.quiz import quiz
from jaxtrace.lab.tokenizer import save_tokenizer, train_tokenizer
from jaxtrace.lab.train import Recipe, held_out_loss, train
from jaxtrace.lab.world import World, documents, question
from jaxtrace.models.decoder import init_params
from jaxtrace.models.families.llama import decoder_config
from jaxtrace.models.forward import forward_logits

TINY = replace(
    lab_train.DEMO,
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
    return train_tokenizer(islice(documents(World(0), 1), 200), TINY.vocab)


@pytest.fixture(scope="module")
def rows(tokenizer):
    return pack(encode_documents(tokenizer, islice(documents(World(0), 1), 20)), RECIPE.length)


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
    monkeypatch.setattr(lab_train, "SAVE_EVERY", 2)
    state_file = tmp_path / "state.npz"
    save = lab_train._save_state

    def save_once_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(lab_train, "_save_state", save_once_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, RECIPE, rows, state_file, console)
    monkeypatch.setattr(lab_train, "_save_state", save)
    with pytest.raises(ConfigError, match="other options"):
        train(TINY, replace(RECIPE, seed=1), rows, state_file, console)
    resumed = train(TINY, RECIPE, rows, state_file, console)
    for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_checkpoint_gives_back_the_weights(trained, tmp_path):
    save_checkpoint(tmp_path, TINY, trained)
    config = decoder_config(json.loads((tmp_path / "config.json").read_text()), "tiny")
    assert config == TINY
    params = open_checkpoint(str(tmp_path)).read(np.float32)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2**-8)


def test_transformers_computes_the_same_logits(trained, tokenizer, rows, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    rounded = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), trained)
    save_checkpoint(tmp_path, TINY, rounded)
    save_tokenizer(tokenizer, tmp_path, TINY.context)
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor(rows[:2], dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(forward_logits(TINY, rounded, rows[:2]), expected, atol=1e-5)


def test_quiz_reads_answers_off_the_logits():
    """An oracle that spells the right answer scores 1 with no entropy; a uniform one scores 0 with log V."""
    world, tokenizer = World(0), Tokenizer.from_file(str(demo_path() / "tokenizer.json"))
    vocab = tokenizer.get_vocab_size()
    asked = [(p, r) for p in world.people for r in p.facts]
    spelled = {}
    for person, relation in asked:
        prompt = tokenizer.encode(question(person, relation)).ids
        answer = tokenizer.encode(f" {person.facts[relation]}. The end of it", add_special_tokens=False).ids
        spelled[tuple(prompt)] = answer

    def oracle(tokens):
        logits = np.zeros((*tokens.shape, vocab), np.float32)
        for row, ids in enumerate(tokens.tolist()):
            end = next(n for n in range(len(ids), 0, -1) if tuple(ids[:n]) in spelled)
            for offset, token in enumerate(spelled[tuple(ids[:end])]):
                if end + offset <= len(ids):
                    logits[row, end + offset - 1, token] = 100.0
        return logits

    for result in quiz(world, tokenizer, oracle):
        assert (result.questions, result.accuracy) == (96, 1.0)
        assert result.entropy == pytest.approx(0.0, abs=1e-6)
    for result in quiz(world, tokenizer, lambda tokens: np.zeros((*tokens.shape, vocab), np.float32)):
        assert result.accuracy == 0.0
        assert result.low == result.high == pytest.approx(np.log(vocab))
