"""The embedded checkpoint is the one that its recipe describes, and knows the facts that its text states often."""

import json
from collections import Counter

import jax
import numpy as np
import pytest
from transformers import AutoTokenizer

from jaxtrace.checkpoints.embedded import demo_path, demo_prompts
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.lab.demo_prompts import make_demo_prompts
from jaxtrace.lab.documents import documents
from jaxtrace.lab.settings import DEMO_WORLD
from jaxtrace.lab.shapes import DEMO
from jaxtrace.lab.train import TRAIN_TEXT
from jaxtrace.lab.world import World
from jaxtrace.models.forward import forward_logits


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo_path())


@pytest.fixture(scope="module")
def next_token_logits(tokenizer):
    """Logits after the last token of each demo prompt."""
    params = open_checkpoint(str(demo_path())).read(np.float32)
    prompts = [tokenizer(p.text).input_ids for p in demo_prompts()]
    tokens = np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    for row, ids in zip(tokens, prompts, strict=True):
        row[: len(ids)] = ids
    logits = np.asarray(jax.jit(forward_logits, static_argnums=0)(DEMO.decoder, params, tokens))
    ends = [len(ids) - 1 for ids in prompts]
    return logits[np.arange(len(prompts)), ends].astype(np.float64)


def test_the_config_is_that_of_the_demo_shape():
    assert json.loads((demo_path() / "config.json").read_text()) == DEMO.config


def test_the_stored_prompts_are_those_that_the_lab_makes():
    assert demo_prompts() == make_demo_prompts()


def test_the_checkpoint_is_small_and_complete():
    names = {path.name for path in demo_path().iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert names >= {"tokenizer_config.json", "special_tokens_map.json", "README.md"}
    assert sum(path.stat().st_size for path in demo_path().iterdir()) < 4e6


def test_prompts_end_before_the_value_that_the_text_states():
    prompts, text = demo_prompts(), "\n".join(documents(World(DEMO_WORLD), TRAIN_TEXT))
    assert Counter(p.meta["seen"] for p in prompts) == dict.fromkeys(("often", "rare", "never"), 8)
    assert [p.id for p in prompts[:2]] == ["demo-often-00", "demo-often-01"]
    assert len({p.id for p in prompts}) == len(prompts)
    for prompt in prompts:
        if prompt.meta["seen"] == "often":
            assert f"{prompt.text} {prompt.meta['answer']}." in text
        if prompt.meta["seen"] == "never":
            assert "answer" not in prompt.meta
            assert prompt.text not in text


def test_every_prompt_round_trips_through_the_tokenizer(tokenizer):
    for prompt in demo_prompts():
        ids = tokenizer(prompt.text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt.text


def test_the_model_knows_facts_stated_often(tokenizer, next_token_logits):
    for prompt, logits in zip(demo_prompts(), next_token_logits, strict=True):
        if prompt.meta["seen"] == "often":
            answer = tokenizer(f" {prompt.meta['answer']}", add_special_tokens=False).input_ids
            assert logits.argmax() == answer[0], prompt.id


def test_entropy_rises_as_facts_are_stated_less_often(next_token_logits):
    log_p = next_token_logits - np.logaddexp.reduce(next_token_logits, axis=-1, keepdims=True)
    entropies = -(np.exp(log_p) * log_p).sum(-1)
    by_class = {}
    for prompt, entropy in zip(demo_prompts(), entropies, strict=True):
        by_class.setdefault(prompt.meta["seen"], []).append(entropy)
    often, rare, never = (np.mean(by_class[seen]) for seen in ("often", "rare", "never"))
    assert often < 0.2 < rare < never
