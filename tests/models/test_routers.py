"""Routers: which experts they choose, and with which factors."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import jaxtrace
from jaxtrace import CheckpointError, ConfigError
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models.config import DecoderConfig, Experts
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.experts import ExpertFeedForward
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.router import RouterOutputs
from tests import oracle
from tests.models.batches import assert_batch_parity
from tests.models.cases import CASES, SMALL, YARN

LAYER = "model.layers.1.mlp"
EYE = np.eye(5, dtype=np.float32)  # a router whose logits are its inputs
BIAS = np.float32([0.0, 0.6, -0.6, 0.3, 0.0])


def routed(logits, bias=None, **choices):
    """Return the experts and factors that a router of 5 experts chooses for rows of logits, and its metrics."""
    experts = Experts(number=5, chosen=2, feed_forward=2, selection_bias=bias is not None, **choices)
    config = DecoderConfig("qwen2_moe", 8, 5, 1, 1, 1, 2, 2, 8, experts=experts)
    module = ExpertFeedForward(config, nnx.Rngs(0))
    module.router[...] = EYE
    if bias is not None:
        module.selection_bias[...] = bias
    outputs = RouterOutputs(metrics=True, experts=True)
    return jax.tree.map(lambda x: np.asarray(x)[0], module.choose(jnp.float32(logits)[None], outputs))


def chosen(*args, **choices):
    """Return the experts and factors alone."""
    return routed(*args, **choices)[0]


@pytest.mark.parametrize("bias", [None, BIAS], ids=["no bias", "bias"])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_a_router_chooses_the_highest_scores_and_weighs_by_scores_without_the_bias(scoring, normalised, bias, rng):
    logits = rng.normal(size=(20, 5))
    (expert, weight), trace = routed(logits, bias, scoring=scoring, normalised=normalised, scale=1.5)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    scores = softmax if scoring == "softmax" else 1 / (1 + np.exp(-logits))
    want = np.argsort(-(scores if bias is None else scores + bias), axis=-1)[:, :2]
    np.testing.assert_array_equal(expert, want)
    factors = np.take_along_axis(scores, want, axis=-1)
    factors = factors / factors.sum(-1, keepdims=True) if normalised else factors
    np.testing.assert_allclose(weight, 1.5 * factors, rtol=1e-5)
    metrics = oracle.router(oracle.router_distribution(logits, scoring), want)
    np.testing.assert_allclose(trace.entropy, metrics["router_entropy"], atol=1e-5)
    np.testing.assert_allclose(trace.top_mass, metrics["router_top_mass"], atol=1e-5)
    np.testing.assert_array_equal(trace.experts, want)


def test_sigmoids_that_round_to_one_are_chosen_by_their_logits():
    expert, weight = chosen([[30, 10, 50, 40, 20]], scoring="sigmoid", normalised=False)
    assert expert.tolist() == [[2, 3]]
    assert weight.tolist() == [[1, 1]]


def test_equal_scores_choose_the_first_experts_and_scores_of_zero_add_nothing():
    expert, weight = chosen(np.full((1, 5), -200.0), np.zeros(5), scoring="sigmoid")
    assert expert.tolist() == [[0, 1]]
    assert weight.tolist() == [[0, 0]]


def test_a_row_that_is_not_finite_changes_no_other_row(rng):
    logits = rng.normal(size=(4, 5))
    bad = logits.copy()
    bad[1], bad[2] = np.nan, np.inf
    for choices in ({}, {"scoring": "sigmoid", "bias": BIAS}):
        for x, y in zip(chosen(logits, **choices), chosen(bad, **choices), strict=True):
            np.testing.assert_array_equal(x[[0, 3]], y[[0, 3]])


@pytest.fixture
def stored(rng, tmp_path):
    """Return the directory and the tensors of a small checkpoint of GLM-4.5."""
    config = SMALL["glm4_moe"] | {"model_type": "glm4_moe", "num_hidden_layers": 2}
    decoder = FAMILIES["glm4_moe"].decoder_config(config, "test")
    random = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract_params(decoder))
    tensors = export_weights(decoder, random)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path, tensors


def test_the_bias_of_the_choice_keeps_float32_in_a_bfloat16_decoder(stored):
    directory, tensors = stored
    convert(open_checkpoint(str(directory)), directory / "converted", dtype="bfloat16")
    for name, stacked in ((directory, False), (directory, True), (directory / "converted", False)):
        layers = jaxtrace.load(str(name), dtype=jnp.bfloat16, stacked=stacked).params["layers"]
        block = (layers.layers() if stacked else layers)[1]["feed_forward"]
        assert block["router"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(block["selection_bias"], tensors[f"{LAYER}.gate.e_score_correction_bias"])


@pytest.mark.parametrize("name", ["gate.e_score_correction_bias", "shared_experts.up_proj.weight"])
def test_a_missing_bias_or_shared_expert_is_refused_in_one_line(stored, name):
    directory, tensors = stored
    del tensors[f"{LAYER}.{name}"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"missing: {LAYER}.{name}\)$"):
        jaxtrace.load(str(directory))


def test_the_layer_that_drafts_tokens_is_ignored_where_transformers_ignores_it(stored):
    directory, tensors = stored
    extra = {"model.layers.46.eh_proj.weight": np.ones((2, 4), np.float32)}
    save_file(tensors | extra, directory / "model.safetensors", metadata={"format": "pt"})
    jaxtrace.load(str(directory))
    save_file(tensors | {"model.layers.2.eh_proj.weight": extra.popitem()[1]}, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=re.escape("unknown: model.layers.2.eh_proj.weight")):
        jaxtrace.load(str(directory))


@pytest.mark.parametrize(
    ("family", "changes", "problem"),
    [
        ("glm4_moe", {"n_group": 2}, "has n_group=2; jaxtrace supports 1"),
        ("dots1", {"topk_group": 4}, "has topk_group=4; jaxtrace supports 1"),
        ("glm4_moe", {"scoring_func": "softmax"}, "has scoring_func='softmax'; jaxtrace supports 'sigmoid'"),
        ("glm4_moe", {"topk_method": "greedy"}, "has topk_method='greedy'; jaxtrace supports 'noaux_tc'"),
        ("glm4_moe", {"num_experts_per_tok": 9}, "num_experts_per_tok=9, which is above n_routed_experts=8"),
        ("glm4_moe", {"n_shared_experts": 0}, "n_shared_experts=0, which must be a positive whole number"),
        ("glm4_moe", {"routed_scaling_factor": 0}, "routed_scaling_factor=0, which must be a positive number"),
        ("glm4_moe", {"first_k_dense_replace": -1}, "first_k_dense_replace=-1, which must be a whole number"),
        ("dots1", {"n_routed_experts": None}, "n_routed_experts=None, which must be a positive whole number"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size=0"),
        ("qwen2_moe", {"layer_types": ["sliding_attention"] * 3}, "has layer_types="),
        ("minimax_m2", {"scoring_func": "softmax"}, "has scoring_func='softmax'"),
        ("llama4_text", {"moe_layers": [1.5]}, "has moe_layers=[1.5], which must be a list of layer numbers"),
        ("llama4_text", {"attn_temperature_tuning": 4}, "attn_temperature_tuning=4, which must be true or false"),
        ("llama4_text", {"rope_parameters": YARN}, "has use_qk_norm, which undoes the attention_factor"),
        (
            "llama4_text",
            {"attention_chunk_size": None, "layer_types": ["chunked_attention"] * 5},
            "jaxtrace supports a list of 5 of full_attention",
        ),
    ],
)
def test_an_unsupported_router_or_layer_is_refused(family, changes, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        FAMILIES[family].decoder_config(SMALL[family] | {"model_type": family} | changes, "test")


def test_a_decoder_whose_layers_are_all_dense_has_no_experts():
    config = SMALL["glm4_moe"] | {"model_type": "glm4_moe", "first_k_dense_replace": 3}
    assert FAMILIES["glm4_moe"].decoder_config(config, "test").experts is None


@pytest.mark.nightly
@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
@pytest.mark.parametrize(
    "case",
    [
        ("qwen2_moe", "a dense layer, windows in every second layer, no biases, normalised, tied"),
        ("glm4_moe", "as published"),
        ("llama4_text", "as published"),
        ("minimax_m2", "as published"),
    ],
    ids=": ".join,
)
def test_a_batch_agrees_with_each_prompt_alone_in_transformers(case, layout, rng, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    from tests.models import hugging_face

    reference = hugging_face.tiny(case[0], **CASES[case])
    reference.save_pretrained(tmp_path)
    model = jaxtrace.load(str(tmp_path), stacked=layout == "stacked")
    assert_batch_parity(model, lambda text, prompt: hugging_face.run(reference, text, prompt=prompt), rng, monkeypatch)
