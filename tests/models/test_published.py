"""Published sizes against config.json files of the hub, and against published parameter counts."""

import math
from dataclasses import replace

import jax
import pytest

from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.published import PUBLISHED, find_published, published_shape
from jaxtrace.planning.cost import parameter_count
from tests.models import published
from tests.models.test_mllama_config import BASE_11B, INSTRUCT_11B, INSTRUCT_90B

NAMES = [model.name for model in PUBLISHED]
HUB = {
    **published.PUBLISHED,
    "Llama-3.2-11B-Vision": BASE_11B,
    "Llama-3.2-11B-Vision-Instruct": INSTRUCT_11B,
    "Llama-3.2-90B-Vision": INSTRUCT_90B,
}
ON_THE_HUB = {name.lower(): config for name, config in HUB.items()}


@pytest.mark.parametrize("model", PUBLISHED, ids=NAMES)
def test_config_equals_the_config_on_the_hub(model):
    raw = ON_THE_HUB[model.name]
    assert model.config == FAMILIES[raw["model_type"]].decoder_config(raw, "hub")
    assert model.raw.keys() <= raw.keys()


@pytest.mark.parametrize("model", PUBLISHED, ids=NAMES)
def test_parameter_count_equals_the_published_count(model):
    leaves = jax.tree.leaves(abstract_params(model.config))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == model.parameters
    assert parameter_count(model.config) == model.parameters


def test_gemma_3_text_and_encoder_add_up_to_the_published_count():
    totals = {"gemma-3-4b": 4_300_079_472, "gemma-3-12b": 12_187_325_040, "gemma-3-27b": 27_432_406_640}
    for name, parameters in totals.items():
        model = find_published(name)
        encoder = 416_866_032  # SigLIP at 896 pixels, without its head
        assert model.parameters + encoder + 1152 + 1152 * model.config.embed_dim == parameters


def test_ministral_3_text_and_encoder_add_up_to_the_published_count():
    totals = {"3b": 3_849_090_048, "8b": 8_918_026_240, "14b": 13_945_031_680}  # without the scales of FP8 weights
    for size, parameters in totals.items():
        model = find_published(f"ministral-3-{size}-base-2512")
        width = model.config.embed_dim
        layers = 24 * (4 * 1024**2 + 3 * 1024 * 4096 + 2 * 1024)  # Pixtral's
        encoder = 1024 * 3 * 14**2 + 1024 + layers
        projector = 1024 + 4 * 1024**2 + 1024 * width + width**2
        assert model.parameters + encoder + projector == parameters


def test_glm_45_and_the_layer_that_drafts_tokens_add_up_to_the_published_count():
    totals = {"glm-4.5-air": 110_468_824_832, "glm-4.5": 358_337_791_296}
    for name, parameters in totals.items():
        config = find_published(name).config
        longer = replace(config, num_layers=config.num_layers + 1, pattern=(*config.pattern, config.pattern[-1]))
        projection, norms = 2 * config.embed_dim**2, 3 * config.embed_dim
        assert parameter_count(longer) + projection + norms + 2 * config.vocab_size * config.embed_dim == parameters


def test_minimax_m2_and_the_scales_of_its_fp8_weights_add_up_to_the_published_count():
    expert, attention = 3 * 12 * 24, (48 + 8 + 8 + 48) * 24  # one scale for each block of 128 · 128
    assert find_published("minimax-m2").parameters + 62 * (256 * expert + attention) == 228_703_644_928


def test_llama_4_text_and_encoder_add_up_to_the_published_count():
    totals = {"scout-17b-16e-instruct": 108_641_793_536, "maverick-17b-128e": 401_583_781_376}
    for name, parameters in totals.items():
        assert find_published(f"llama-4-{name}").parameters + 871_932_416 == parameters


@pytest.mark.parametrize("name", ["llama-3.2-1b", "meta-llama/Llama-3.2-1B", "LLAMA-3.2-1B", "META-LLAMA/llama-3.2-1b"])
def test_find_published_ignores_case(name):
    assert find_published(name).hub_id == "meta-llama/Llama-3.2-1B"


def test_names_are_short_and_unique():
    assert len(set(NAMES)) == len(NAMES) == len({model.hub_id for model in PUBLISHED})
    for model in PUBLISHED:
        assert model.name == model.name.lower() and "/" not in model.name
        assert find_published(model.name) is find_published(model.hub_id) is model


@pytest.mark.parametrize("name", ["", "llama", "llama-3.2-1b ", "Llama-3.2-2B", "google/gemma-3-1b"])
def test_find_published_returns_none_for_unknown_names(name):
    assert find_published(name) is None


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("meta-llama/Llama-3.2-1B-Instruct", "llama-3.2-1b"),
        ("google/gemma-3-1b-it", "gemma-3-1b"),
        ("Qwen/Qwen3-1.7B", "qwen3-1.7b"),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "llama-3.2-11b-vision-instruct"),
    ],
)
def test_published_shape_accepts_instruction_tuned_models(name, same):
    assert published_shape(name) is find_published(same).config


def test_published_shape_is_none_for_unknown_names():
    assert published_shape("someone/gemma-3-1b-it-tuned") is None
