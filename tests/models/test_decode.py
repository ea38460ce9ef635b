"""Scoring a text at once and generating it token by token give the same trace, in every kind of decoder."""

import jax
import jax.numpy as jnp
import pytest

from jaxtrace import Model, init_params
from jaxtrace.engine import buckets
from jaxtrace.models.decoder import stack_layers
from jaxtrace.models.families import FAMILIES
from tests.engine.reference import assert_same, at
from tests.models.cases import CASES, SMALL

KINDS = {
    "mistral: windows": "unrolled",
    "gemma2: as published": "stacked",
    "gemma3_text: two periods and a tail": "unrolled",
    "gemma4_text: shared keys and values, layer inputs": "stacked",
    "gemma4_text: keys as values, more key heads in windows, a period and a tail": "unrolled",
    "gemma4_text: experts, shared keys and values, two widths, layer inputs": "stacked",
    "qwen3_moe: every second layer, scores as they are": "stacked",
    "mixtral: windows, one expert of eight, tied": "unrolled",
    "qwen3_5_text: as published": "stacked",
    "qwen2_moe: every second layer, windows in the first, all experts": "stacked",
    "glm4_moe: two dense layers, scores as they are, all of a head rotated, tied": "unrolled",
    "llama4_text: as published": "stacked",
    "gpt_oss: as published": "stacked",
    "gpt2: as published": "stacked",
    "gpt_neox: as published": "unrolled",
    "phi3: multi-query windows, gelu": "stacked",
    "olmo3: a period and a tail": "stacked",
    "smollm3: listed layers, windows with rope": "unrolled",
    "ministral3: windows, tied, multi-query, linear rope": "unrolled",
}
# The others run nightly: test_masks.py has Gemma 2's block, test_real_checkpoints.py Llama's, test_gemma4.py shared
# keys and values.
DAILY = ("gpt2: as published",)
LENGTHS = (3, 1, 40, 17)  # shorter and longer than the windows of 5


def random_model(kind, case):
    """Return a decoder whose heads attend to different positions, with unrolled layers."""
    config = FAMILIES[kind].decoder_config({"model_type": kind} | SMALL[kind] | CASES[kind, case], "tiny")
    initial = init_params(config, jax.random.key(0))
    params = jax.tree.map(lambda x: x if jnp.ptp(x) == 0 else 8 * x, initial)  # norms and biases are constant
    return Model("tiny", config, params)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] * (name not in DAILY)) for name in KINDS]
)
def test_decode_equals_score(name, rng, monkeypatch):
    model = random_model(*name.split(": "))
    params = stack_layers(model.config, model.params) if KINDS[name] == "stacked" else model.params
    prompts = [rng.integers(0, model.config.vocab_size, size).tolist() for size in LENGTHS]
    with monkeypatch.context() as patch:
        patch.setattr(buckets, "CHUNK_WIDTHS", (16,))  # splits the longest prompt into three chunks
        generated = Model("tiny", model.config, params).generate(prompts, max_new_tokens=12).rows
    texts = [[*row.prompt_tokens, *row.metrics["token"]] for row in generated]
    scored = model.score(texts, prompt_lengths=[len(prompt) for prompt in prompts]).rows
    for row, again in zip(generated, scored, strict=True):
        # Caches of other sizes sum in another order.
        assert_same(row.metrics, at(again.metrics, slice(len(row.prompt_tokens) - 1, -1)), bound=2e-5)
