"""Tiny random Llamas against transformers (eager, float32), through a checkpoint on disk."""

import itertools

import numpy as np
import pytest

import jaxtrace
from tests.models import hugging_face
from tests.models.parity import assert_parity, compiled, everything

KV_HEADS = {"multi-head": 4, "multi-query": 1, "grouped": 2}
ROPE = {"no scaling": hugging_face.PLAIN, "llama3": hugging_face.LLAMA3}
CASES = {
    f"{heads}, {'tied' if tied else 'untied'}, {rope}": {
        "num_key_value_heads": KV_HEADS[heads],
        "tie_word_embeddings": tied,
        "rope_parameters": ROPE[rope],
    }
    for heads, tied, rope in itertools.product(KV_HEADS, (False, True), ROPE)
}
CASES["biases"] = {"attention_bias": True, "mlp_bias": True, "rope_parameters": hugging_face.LLAMA3}
CASES["heads wider than the stream"] = {"head_dim": 16, "num_key_value_heads": 1, "vocab_size": 11}
LENGTH = 48  # three times the context that llama3 scaling stretches


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(directory, tokens, what transformers computes)."""
    reference = hugging_face.tiny(**CASES[request.param])
    directory = tmp_path_factory.mktemp("checkpoint")
    reference.save_pretrained(directory)
    tokens = np.random.default_rng(0).integers(0, reference.config.vocab_size, LENGTH)
    return directory, tokens, hugging_face.run(reference, tokens.tolist())


@pytest.mark.parametrize("stacked", [False, True], ids=["unrolled", "stacked"])
def test_parity(case, stacked):
    directory, tokens, run = case
    model = jaxtrace.load(str(directory), stacked=stacked)
    assert_parity(model, tokens, run, compute=compiled if stacked else everything)
