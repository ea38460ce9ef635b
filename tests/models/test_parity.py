"""Tiny random models of every family against transformers (eager, float32), through a checkpoint on disk."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxtrace
from jaxtrace.models.activations import ACTIVATIONS as FUNCTIONS
from jaxtrace.models.families.reader import ACTIVATIONS
from jaxtrace.models.forward import forward_logits
from tests.models import hugging_face
from tests.models.cases import CASES, LENGTH
from tests.models.parity import assert_parity

# Cases alternate between the layouts, so every family with two cases is compared in both.
LAYOUTS = {case: "stacked" if i % 2 else "unrolled" for i, case in enumerate(CASES)}


# Gemma 3 has another name for it and GPT-2 no prefix; the others are read as Llama.
@pytest.mark.parametrize(
    "family",
    [
        pytest.param("llama", marks=pytest.mark.nightly),
        pytest.param("qwen2", marks=pytest.mark.nightly),
        "gemma3",
        "gpt2",
    ],
)
def test_an_unembedding_that_differs_from_a_tied_embedding_is_read_as_in_transformers(family, tmp_path):
    hugging_face.tiny(family, tie_word_embeddings=True).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    (embedding,) = (name for name in weights if name.endswith(("embed_tokens.weight", "wte.weight")))
    weights["language_model.lm_head.weight" if family == "gemma3" else "lm_head.weight"] = 2 * weights[embedding]
    save_file(weights, file, metadata={"format": "pt"})
    run = hugging_face.run(hugging_face.load(tmp_path), [3, 1, 4, 1, 5])
    model = jaxtrace.load(str(tmp_path))
    logits = forward_logits(model.config, model.params, np.array([[3, 1, 4, 1, 5]]))[0]
    np.testing.assert_allclose(logits, run.logits, atol=1e-4)


# What they have is in other cases of their family, or of the family with the same block.
NIGHTLY = {
    ("llama", "multi-head, untied"),
    ("llama", "grouped, scaled rope"),
    ("mistral", "no windows"),
    ("qwen2", "windows in the last layers"),
    ("qwen2_moe", "as published"),
    ("qwen2_moe", "every second layer, windows in the first, all experts"),
    ("flex_olmo", "as published"),
    ("flex_olmo", "normalised scores, biases, tied"),
    ("dots1", "as published"),
    ("dots1", "windows in the last layers, biases, scores as they are, tied"),
    ("minimax_m2", "as published"),
    ("minimax_m2", "all of a head rotated, tied, scaled rope"),
    ("llama4_text", "dense layers, two experts, no norms, no tuning, biases, tied"),
    ("llama4_text", "listed layers, no chunks"),
    ("llama4", "with a vision tower"),
    ("glm4_moe", "two dense layers, scores as they are, all of a head rotated, tied"),
    ("qwen3_moe", "as published"),
    ("qwen3_moe", "a dense layer, biases, windows, tied"),
    ("qwen3_5_text", "as published"),
    ("qwen3_5_text", "biases, tied, a value head for each key head, gelu, attention first"),
    ("qwen3_5_moe_text", "as published"),
    ("qwen3_5_moe_text", "biases, tied, three experts, scaled rope"),
    ("qwen3_5_moe", "with an image encoder"),
    ("qwen3_next", "as published"),
    ("mixtral", "as published"),
    ("mixtral", "windows, one expert of eight, tied"),
    ("olmoe", "as published"),
    ("olmoe", "normalised scores, biases, tied, scaled rope"),
    ("phi3", "longrope, within its original context"),
    ("phi3", "multi-query windows, gelu"),
    ("gpt_neox", "tied, an odd number of dimensions rotated"),
    ("internlm3", "biases"),
    ("iquestcoder", "tied"),
    ("olmo2", "grouped"),
    ("olmo2", "multi-head, heads wider than the stream, gelu"),
    ("olmo3", "biases, multi-query, tied"),
    ("olmo3", "full layers first, two bases"),
    ("smollm3", "as published"),
    ("smollm3", "windows without rope, biases, untied"),
    ("ministral", "windows in every second layer"),
    ("ministral", "windows everywhere"),
    ("ministral3", "as published"),
    ("ministral3", "unscaled queries"),
    ("mistral3", "Ministral 3 with a vision tower"),
    ("gemma4_text", "shared keys and values, layer inputs"),
    ("gemma4_text", "keys as values, more key heads in windows, a period and a tail"),
    ("gemma4_text", "experts, shared keys and values, two widths, layer inputs"),
    ("gemma4_text", "full layers only, one width"),
    ("gemma4_unified_text", "keys as values"),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=": ".join(case), marks=[pytest.mark.nightly] * (case in NIGHTLY)) for case in CASES],
)
def test_metrics_agree_with_transformers(case, tmp_path):
    family, _ = case
    reference = hugging_face.tiny(family, **CASES[case])
    reference.save_pretrained(tmp_path)
    vocab_size = reference.config.get_text_config().vocab_size
    tokens = np.random.default_rng(0).integers(0, vocab_size, LENGTH)
    model = jaxtrace.load(str(tmp_path), stacked=LAYOUTS[case] == "stacked")
    assert_parity(model, tokens, hugging_face.run(reference, tokens.tolist()))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_name_of_an_activation_is_the_function_of_transformers(name):
    from transformers.activations import ACT2FN  # needs torch, without which tests.models.hugging_face skips this file

    x = np.linspace(-6, 6, 101, dtype=np.float32)
    want = ACT2FN[name](hugging_face.torch.tensor(x)).numpy()
    np.testing.assert_allclose(FUNCTIONS[ACTIVATIONS[name]](x), want, rtol=1e-5, atol=1e-5)
