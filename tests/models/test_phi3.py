"""Phi-3's LongRoPE in a generation that grows beyond the original context, against transformers fed token by token."""

import numpy as np
import pytest
from transformers import DynamicCache

import jaxtrace
from jaxtrace.models.config import LongRopeScaling
from jaxtrace.models.families import FAMILIES
from tests.models import hugging_face
from tests.models.cases import CASES, LONGROPE

CASE = CASES["phi3", "longrope, beyond its original context"]
ORIGINAL = CASE["original_max_position_embeddings"]
PROMPTS = (ORIGINAL - 6, ORIGINAL, ORIGINAL + 5)  # tokens
STEPS = 12


def entropies(reference, prompt, drawn):
    """Return the entropy of each step; keys of earlier steps keep their rotation."""
    torch, cache, fed = hugging_face.torch, DynamicCache(config=reference.config), [prompt, *drawn[:-1, None].tolist()]
    with torch.no_grad():
        logits = [reference(torch.tensor([tokens]), cache=cache, use_cache=True).logits[0, -1] for tokens in fed]
    logprobs = torch.log_softmax(torch.stack(logits), -1).numpy()
    return -(np.exp(logprobs) * logprobs).sum(-1)


@pytest.mark.nightly
def test_a_generation_beyond_the_original_context_agrees_with_transformers_forward_passes(rng, tmp_path):
    reference = hugging_face.tiny("phi3", **CASE)
    reference.save_pretrained(tmp_path)
    model = jaxtrace.load(str(tmp_path))
    prompts = [rng.integers(0, model.config.vocab_size, size).tolist() for size in PROMPTS]
    rows = model.generate(prompts, max_new_tokens=STEPS, stop_tokens=()).rows
    for prompt, row in zip(prompts, rows, strict=True):
        expected = entropies(reference, prompt, row.metrics["token"])
        np.testing.assert_allclose(row.metrics["entropy"], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["su", "yarn", "longrope"])
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_longrope_has_three_names(name, key):
    scaling = {key: name} | {part: x for part, x in LONGROPE.items() if part != "rope_type"}
    raw = {"model_type": "phi3", "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = FAMILIES["phi3"].decoder_config(raw | {"rope_scaling": scaling, "max_position_embeddings": 65_536}, "test")
    factors = tuple(LONGROPE["short_factor"]), tuple(LONGROPE["long_factor"])
    assert config.pattern[0].rope.scaling == LongRopeScaling(*factors, 4096, pytest.approx((4 / 3) ** 0.5))
