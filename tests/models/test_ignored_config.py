"""Attributes of a config that jaxtrace does not read: accepted where they move no logit of transformers."""

import numpy as np
import pytest

from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.known import KNOWN, VERSION
from jaxtrace.models.families.reader import INERT_NAMES, NEUTRAL
from scripts import config_names
from tests.models.cases import SEEING, SMALL

# Attributes in real configs that no code of transformers reads, for any family.
UNKNOWN = {
    "activation": "silu",
    "internal_version": "7b-alpha",
    "logit_scale": 0.5,
    "move_model_to_device": True,
    "selective_checkpoint_enabled": False,
    "sequence_parallel_enabled": True,
}
# Values of names that transformers checks; the others are set to 1.
VALUES = {
    "_attn_implementation": "eager",
    "attention_dropout": 0.5,
    "attn_implementation": "eager",
    "cache_implementation": "dynamic",
    "dtype": "float32",
    "experts_implementation": "eager",
    "id2label": {"0": "no", "1": "yes", "2": "perhaps"},
    "initializer_range": 0.5,
    "is_decoder": True,
    "num_labels": 3,
    "torch_dtype": "float32",
    "use_cache": False,
}


def parsed(kind, names, reasons=None):
    """Return the decoder config of a small config with further attributes; mllama's go to its text part."""
    base = {**SMALL.get(kind, SEEING), "model_type": kind}
    changed = {"text_config": base["text_config"] | names} if kind == "mllama" else names
    return FAMILIES[kind].decoder_config(base | changed, "test", reasons)


def accepted(kind, names):
    """Return the reasons for ignoring some attributes; each is read alone."""
    reasons, of_base = {}, {}
    parsed(kind, {}, of_base)
    for name, value in names.items():
        parsed(kind, {name: value}, reasons)
    return {name.removeprefix("text_config."): reasons[name] for name in reasons.keys() - of_base.keys()}


def of_other_families(kind):
    """Return attributes that shape other families' models and that this family does not know."""
    names = {name for module in FAMILIES.values() for name in module.DEFAULTS}
    shaping = {name for name in names if name.startswith("rope_")} | {"hidden_act", "global_head_dim"}
    shaping |= {"linear_key_head_dim", "linear_value_head_dim"}
    shaping |= {"enable_moe_block", "hidden_size_per_layer_input", *NEUTRAL}
    other_names = {"exaone": {"activation_function", "layer_norm_epsilon"}, "iquestcoder": {"use_sliding_window"}}
    other_names |= {"qwen3_moe": {"num_local_experts"}, "internlm3": {"qkv_bias"}}
    if kind.startswith("qwen3_5") or kind == "qwen3_next":  # families of delta nets check them, unlike transformers
        shaping |= {"attn_output_gate", "output_gate_type"}
    shaping |= other_names.get(kind, set())
    family = FAMILIES[kind].__name__.rpartition(".")[2]
    family = "gemma4_unified" if kind.startswith("gemma4_unified") else family
    return dict.fromkeys(names - KNOWN[family] - shaping - NEUTRAL.keys(), 1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_inert_null_and_unknown_attributes_are_accepted_with_their_reason(kind):
    names = {name: VALUES.get(name, 1) for name in INERT_NAMES}
    assert accepted(kind, names) == dict.fromkeys(names, "inert")
    assert accepted(kind, UNKNOWN) == dict.fromkeys(UNKNOWN, "unknown to transformers")
    nulls = ("rope_ratio", "attention_chunk_size", "v_head_dim", "per_layer_config", "activation")
    read = {"per_layer_config"} if kind.startswith("gemma4") and kind.endswith("_text") else set()
    read |= {"attention_chunk_size"} if kind == "llama4_text" else set()
    assert accepted(kind, dict.fromkeys(nulls)) == dict.fromkeys({*nulls} - read, "null")
    assert accepted(kind, {"auto_map": {"AutoModel": "code.Model"}}) == {"auto_map": "its code is never run"}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mllama"])
def test_window_fields_of_qwen_are_accepted_in_other_families_if_they_are_switched_off(kind):
    off = {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 1}
    assert parsed(kind, off) == parsed(kind, {})


@pytest.mark.parametrize("kind", [*SMALL, "mllama"])
def test_ignored_attributes_do_not_move_the_logits_of_transformers(kind):
    pytest.importorskip("torch")
    from tests.models import hugging_face, mllama_reference

    names = {name: VALUES.get(name, 1) for name in sorted(INERT_NAMES)} | UNKNOWN | of_other_families(kind)
    names |= {"auto_map": {"AutoModel": "code.Model"}}
    reasons = accepted(kind, names)
    assert reasons.keys() == names.keys()

    def logits(**names):
        if kind == "mllama":
            return mllama_reference.run(mllama_reference.tiny(text=names), range(24)).logits
        return hugging_face.run(hugging_face.tiny(kind, **names), list(range(24))).logits

    np.testing.assert_allclose(logits(**names), logits(), rtol=1e-5, atol=1e-5)


def test_known_names_are_those_of_the_installed_transformers():
    if config_names.version("transformers") != VERSION:
        pytest.skip(f"known.py is of transformers {VERSION}; scripts/config_names.py writes it")
    assert config_names.FILE.read_text(encoding="utf-8") == config_names.text()
