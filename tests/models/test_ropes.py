"""Rotary positions of every kind against transformers: frequencies, and traces below and above the original context."""

import copy

import jax
import numpy as np
import pytest
import transformers

import jaxtrace
from jaxtrace.models.families import FAMILIES, llama, ropes
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.rope import inverse_frequencies, rotation
from tests.models import cases, hugging_face
from tests.models.batches import assert_batch_parity

ORIGINAL = "original_max_position_embeddings"
SHORT, LONG = [1.0, 1.2, 1.5, 2.5], [1.0, 3.0, 7.0, 20.0]
LONGROPE = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG}
SHAPE = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 256}

SETTINGS = {
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 300.0}},
    "old linear": {"rope_scaling": {"type": "linear", "factor": 3}, "rope_theta": 300},
    "llama3": {"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}},
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, ORIGINAL: 64}, "rope_theta": 1e6},
    "yarn of a context": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "yarn by contexts": {"rope_parameters": {"rope_type": "yarn", "factor": None, ORIGINAL: 32}},
    "yarn, original above": {"rope_parameters": {"rope_type": "yarn", "factor": 4, ORIGINAL: 64}, ORIGINAL: 16},
    "yarn, no ramp": {"rope_scaling": {"type": "yarn", "factor": 8.0, "beta_fast": 1, "beta_slow": 1, ORIGINAL: 32}},
    "yarn, not rounded": {"rope_scaling": {"type": "yarn", "factor": 32.0, "truncate": False, ORIGINAL: 99}},
    "yarn, narrow": {"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 8, "beta_slow": 3}},
    "yarn of DeepSeek": {"rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.7, "mscale_all_dim": 0.5}},
    "yarn, one mscale": {"rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.7}},
    "yarn of Devstral 2": {"rope_scaling": {"type": "yarn", "factor": 64, "mscale": 1.0, "mscale_all_dim": 0.0}},
    "yarn, zeros": {"rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 0, "beta_slow": 0, "mscale": 0}},
    "yarn, given": {"rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.7, "attention_factor": 1.3}},
    "longrope of Phi-3": {"rope_scaling": LONGROPE, ORIGINAL: 16},
    "longrope, a factor": {"rope_parameters": LONGROPE | {"factor": 3.0, ORIGINAL: 16}},
    "longrope, given": {"rope_parameters": LONGROPE | {"factor": 3.0, "attention_factor": 2.0, ORIGINAL: 16}},
    "longrope of a context": {"rope_scaling": LONGROPE},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.5}},
    "proportional": {"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 0.6}},
    "proportional, longer": {
        "rope_parameters": {"rope_type": "proportional", "factor": 2},
        "partial_rotary_factor": 0.5,
    },
}


def rope_of(settings):
    config = FAMILIES["llama"].decoder_config(SHAPE | copy.deepcopy(settings), "test")
    return config.pattern[0].rope


@pytest.mark.parametrize("name", SETTINGS)
def test_frequencies_and_attention_factors_are_those_of_transformers(name):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    reference = transformers.LlamaConfig.from_dict(SHAPE | copy.deepcopy(SETTINGS[name]))
    reference.standardize_rope_params()
    rope, lengths = rope_of(SETTINGS[name]), np.array([1, 16, 17, 256, 257, 600])
    frequencies = np.broadcast_to(inverse_frequencies(rope, 8, lengths), (len(lengths), 4))
    cos, sin = rotation(rope, 8, lengths[:, None] - 1, lengths)
    for i, length in enumerate(lengths):
        compute = ROPE_INIT_FUNCTIONS[reference.rope_parameters["rope_type"]]
        expected, factor = compute(reference, seq_len=int(length))
        np.testing.assert_allclose(frequencies[i], expected.numpy(), rtol=1e-6)
        np.testing.assert_allclose(np.hypot(cos[i], sin[i]), factor, rtol=1e-6)


@pytest.mark.parametrize("name", ["linear", "yarn", "yarn, not rounded", "dynamic"])
def test_frequencies_of_a_part_of_a_head_are_those_of_transformers(name):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = SHAPE | copy.deepcopy(SETTINGS[name]) | {"head_dim": 32, "partial_rotary_factor": 0.4}
    with ConfigReader(settings, "test", llama.DEFAULTS | {"partial_rotary_factor": 1.0}, "llama") as reader:
        rope = ropes.rope(reader)
        reader.ignore(*settings)
    reference = transformers.LlamaConfig.from_dict(copy.deepcopy(settings))
    expected, factor = ROPE_INIT_FUNCTIONS[reference.rope_parameters["rope_type"]](reference, seq_len=300)
    frequencies = np.broadcast_to(inverse_frequencies(rope, 32, np.array([300])), (1, 6))
    np.testing.assert_allclose(frequencies[0], expected.numpy(), rtol=1e-6)
    assert getattr(rope.scaling, "attention_factor", 1.0) == pytest.approx(factor)


def test_yarn_lengthens_queries_and_keys_by_a_tenth_of_the_factors_logarithm():
    rope = rope_of(SETTINGS["yarn"])
    assert rope.scaling.attention_factor == pytest.approx(1.1386294, abs=1e-7)


@pytest.mark.parametrize(
    ("settings", "context"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 1024),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, ORIGINAL: 64}}, 256),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.5}}, 640),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 256),
        ({"rope_scaling": LONGROPE, ORIGINAL: 16}, 256),
    ],
    ids=str,
)
def test_the_context_is_the_one_that_the_scaling_extends(settings, context):
    assert FAMILIES["llama"].decoder_config(SHAPE | settings, "test").context == context


# Tiny models, whose original context is 16, beyond which two prompts of `batches.LENGTHS` grow. Dynamic scaling takes
# it from the context, and extends that to 64.
MODELS = {
    "yarn": {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 16},
    "longrope": LONGROPE | {ORIGINAL: 16},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, ORIGINAL: 16},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.5},
}
SPLIT = {
    "sliding_attention": LONGROPE | {ORIGINAL: 16, "rope_theta": 50.0},
    "full_attention": {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 16, "rope_theta": 500.0},
}
DAILY = {("longrope", "stacked")}


@pytest.fixture
def tiny(tmp_path):
    """Return a function that builds a model of transformers and loads its checkpoint."""

    def build(name, layout):
        family, choices = "llama", {"rope_parameters": {"rope_theta": 100.0} | MODELS.get(name, {})}
        if name == "by layer type":
            family, choices = "gemma3_text", {"rope_parameters": SPLIT, "sliding_window": 8, "num_hidden_layers": 2}
        if name == "of Phi-3":  # a fraction of the head, and the original context at the top of the config
            family, choices = "phi3", {"rope_parameters": cases.LONGROPE, ORIGINAL: 16}
        if name == "dynamic":
            choices["max_position_embeddings"] = 16
        reference = hugging_face.tiny(family, **copy.deepcopy(choices))
        reference.save_pretrained(tmp_path)
        return reference, jaxtrace.load(str(tmp_path), stacked=layout == "stacked")

    return build


def fresh(reference):
    """Forget the longest sequence so far, which dynamic scaling of transformers keeps."""
    decoder = reference.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(reference.config)
    return reference


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(name, layout, marks=[pytest.mark.nightly] * ((name, layout) not in DAILY))
        for name in (*MODELS, "by layer type", "of Phi-3")
        for layout in ("unrolled", "stacked")
    ],
)
def test_a_batch_agrees_with_each_prompt_alone_in_transformers(tiny, rng, monkeypatch, name, layout):
    reference, model = tiny(name, layout)
    assert_batch_parity(
        model, lambda text, prompt: hugging_face.run(fresh(reference), text, prompt=prompt), rng, monkeypatch
    )


def test_rows_beyond_the_original_context_turn_otherwise():
    rope, position = rope_of(SETTINGS["longrope of Phi-3"]), np.arange(4)[None].repeat(2, axis=0)
    cos, _ = rotation(rope, 8, position, np.array([16, 17]))
    assert not np.allclose(cos[0, 1:], cos[1, 1:])
    again, _ = jax.jit(rotation, static_argnums=(0, 1))(rope, 8, position[:1], np.array([16]))
    np.testing.assert_allclose(again[0], cos[0], rtol=1e-6)
