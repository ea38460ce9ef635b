"""Tiny random models of every family against transformers (eager, float32), through a checkpoint on disk."""

import numpy as np
import pytest

import jaxtrace
from tests.models import hugging_face
from tests.models.cases import CASES, LENGTH
from tests.models.parity import assert_parity, compiled, everything

# Cases alternate between the layouts, so every family with two cases is compared in both.
LAYOUTS = {case: "stacked" if i % 2 else "unrolled" for i, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES, ids=": ".join)
def test_metrics_agree_with_transformers(case, tmp_path):
    family, _ = case
    reference = hugging_face.tiny(family, **CASES[case])
    reference.save_pretrained(tmp_path)
    vocab_size = reference.config.get_text_config().vocab_size
    tokens = np.random.default_rng(0).integers(0, vocab_size, LENGTH)
    stacked = LAYOUTS[case] == "stacked"
    model = jaxtrace.load(str(tmp_path), stacked=stacked)
    run = hugging_face.run(reference, tokens.tolist())
    assert_parity(model, tokens, run, compute=compiled if stacked else everything)
