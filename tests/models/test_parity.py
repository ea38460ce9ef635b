"""Tiny random models of every family against transformers (eager, float32), through a checkpoint on disk."""

import numpy as np
import pytest

import jaxtrace
from tests.models import hugging_face
from tests.models.cases import CASES, LENGTH
from tests.models.parity import assert_parity, compiled, everything


@pytest.fixture(scope="module", params=CASES, ids=": ".join)
def case(request, tmp_path_factory):
    """(directory, tokens, what transformers computes)."""
    family, _ = request.param
    reference = hugging_face.tiny(family, **CASES[request.param])
    directory = tmp_path_factory.mktemp("checkpoint")
    reference.save_pretrained(directory)
    vocab = reference.config.get_text_config().vocab_size
    tokens = np.random.default_rng(0).integers(0, vocab, LENGTH)
    return directory, tokens, hugging_face.run(reference, tokens.tolist())


@pytest.mark.parametrize("stacked", [False, True], ids=["unrolled", "stacked"])
def test_parity(case, stacked):
    directory, tokens, run = case
    model = jaxtrace.load(str(directory), stacked=stacked)
    assert_parity(model, tokens, run, compute=compiled if stacked else everything)
