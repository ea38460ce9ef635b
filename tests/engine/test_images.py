"""Prompts with images: batches against single prompts, generated steps against scored positions, errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxtrace import ConfigError, Model, Probes, Prompt, PromptError, init_params
from jaxtrace.checkpoints.images import ImageProcessor
from jaxtrace.figures.columns import token_columns
from jaxtrace.figures.summary import summary
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import abstract_params, stack_layers
from jaxtrace.models.vision_config import VisionConfig
from tests.engine.conftest import CONFIG
from tests.engine.reference import assert_same, at

IMAGE = 40  # id beyond the 37 tokens of the vocabulary, among 8 extra ones
PROBES = Probes.of("output", "attention", "dispersion", "hidden")  # the lens does not depend on other positions
CROSS_ATTENTION = LayerKind(rope=None, cross_attention=True)
VISION = VisionConfig(
    embed_dim=16,
    num_layers=2,
    global_layers=1,
    num_heads=2,
    feed_forward=24,
    image_size=12,
    patch_size=4,
    channels=3,
    max_tiles=4,
    aspect_ratios=((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)),
    outputs=(0,),
)
WITH_IMAGES = dataclasses.replace(
    CONFIG, pattern=(CONFIG.pattern[0], CROSS_ATTENTION), extra_tokens=8, image_token=IMAGE, vision=VISION
)


def picture(height, width):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PROMPTS = [[IMAGE, 1, 9, 30, 4], [1, 5, 7], [1, 12, IMAGE, 3, 3, IMAGE, 8, 20], [1, IMAGE, IMAGE, 6]]
IMAGES = [picture(10, 33), None, [picture(12, 12), picture(50, 20)], [picture(5, 50), picture(30, 30)]]


@pytest.fixture(scope="module")
def model():
    """Return a tiny random model with open gates, whose heads attend to different positions."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        noise = 0.2 * rng.normal(size=leaf.shape)
        middle = (
            0.7 if name.endswith("gate") and leaf.ndim == 1 else 1.0 if name == "weight" and leaf.ndim == 1 else 0.0
        )
        return jnp.array(middle + noise, jnp.float32)

    params = jax.tree_util.tree_map_with_path(draw, abstract_params(WITH_IMAGES))
    return Model("with_images", WITH_IMAGES, params, image_processor=ImageProcessor.of(VISION))


@pytest.fixture(scope="module")
def scored(model):
    return model.score(PROMPTS, images=IMAGES, probes=PROBES)


def test_prompt_scores_the_same_alone_and_in_a_batch(model, scored):
    for i in (1, 2):
        alone = model.score(PROMPTS[i : i + 1], images=IMAGES[i : i + 1], probes=PROBES).rows[0]
        assert_same(scored.rows[i].metrics, alone.metrics)


def test_prompt_without_images_skips_the_cross_attention_layers(model, scored):
    """Compare with a model of the other layers; skipped layers keep their numbers."""
    without_images = dataclasses.replace(
        WITH_IMAGES, num_layers=2, pattern=CONFIG.pattern, vision=None, image_token=None
    )
    params = {name: x for name, x in model.params.items() if name != "vision"}
    params["layers"] = [model.params["layers"][i] for i in (0, 2)]
    want = Model("without_images", without_images, params).score([PROMPTS[1]], probes=PROBES).rows[0].metrics
    metrics = scored.rows[1].metrics
    for name, values in metrics.items():
        if values.ndim > 1 and name != "renyi":
            values = values[:, [0, 1, 3] if values.shape[1] == 4 else [0, 2]]
        np.testing.assert_allclose(values, want[name], rtol=1e-5, atol=1e-4, err_msg=name)
    for name in ("attention_entropy", "attention_varentropy", "sink_mass", "hdi", "head_jsd"):
        assert np.isnan(metrics[name][:, 1]).all(), name
    np.testing.assert_array_equal(metrics["hidden_delta_layer"][:, 1], 0)
    for name, column in token_columns(scored.rows[1], (1, 2, 3)).items():
        if name in ("attention_entropy", "sink_mass", "hdi", "head_jsd"):
            axes = (*range(1, want[name].ndim),)
            np.testing.assert_allclose(column, want[name].mean(axes), rtol=1e-5, atol=1e-4, err_msg=name)
    shown = dict(summary(scored))
    assert "mean attention entropy (2 to 3 of 3 layers)" in shown
    assert "mean sink mass (2 of 3 layers)" in shown  # an image has no position 0


def test_images_change_the_tokens_after_them(model, scored):
    other = [picture(11, 31), None, [picture(12, 13), picture(50, 21)], [picture(6, 50), picture(31, 30)]]
    changed = model.score(PROMPTS, images=other, probes=PROBES)
    for i in (0, 2, 3):
        assert np.abs(scored.rows[i].metrics["entropy"] - changed.rows[i].metrics["entropy"])[-1] > 1e-4
    np.testing.assert_array_equal(scored.rows[1].metrics["entropy"], changed.rows[1].metrics["entropy"])


def test_tokens_between_two_images_see_the_first(model):
    prompt = [IMAGE, 4, 9, IMAGE, 11, 2]
    one, other = (
        model.score([prompt], images=[[IMAGES[0], second]], probes=PROBES).rows[0].metrics
        for second in (picture(50, 20), picture(7, 8))
    )
    for name, values in one.items():
        np.testing.assert_allclose(values[:3], other[name][:3], atol=1e-5, err_msg=name)
    assert np.abs(one["entropy"] - other["entropy"])[3:].min() > 1e-4


def test_image_tokens_have_no_logprob(scored):
    for row, prompt in zip(scored.rows, PROMPTS, strict=True):
        following = np.array([*prompt[1:], IMAGE])
        np.testing.assert_array_equal(np.isnan(row.metrics["logprob"]), following == IMAGE)


@pytest.mark.parametrize("layout", ["unrolled", pytest.param("stacked", marks=pytest.mark.nightly)])
def test_generated_steps_equal_scored_positions(model, layout):
    if layout == "stacked":
        model = dataclasses.replace(model, params=stack_layers(WITH_IMAGES, model.params))
    generated = model.generate(PROMPTS, images=IMAGES, max_new_tokens=6, probes=PROBES)
    texts = [[*prompt, *row.metrics["token"].tolist()] for prompt, row in zip(PROMPTS, generated.rows, strict=True)]
    sizes = [len(prompt) for prompt in PROMPTS]
    rescored = model.score(texts, images=IMAGES, probes=PROBES, prompt_lengths=sizes)
    for prompt, row, again in zip(PROMPTS, generated.rows, rescored.rows, strict=True):
        steps = slice(len(prompt) - 1, len(prompt) + 5)
        assert_same(row.metrics, at(again.metrics, steps), bound=1e-4)


def test_refilled_rows_attend_to_their_own_images(model):
    """Run eight prompts on two rows, in every order with and without images; a group of rows may have no image."""
    order = (1, 0, 1, 2, 3, 1, 1, 2)
    prompts, images = [PROMPTS[i] for i in order], [IMAGES[i] for i in order]
    rows = model.generate(prompts, images=images, max_new_tokens=3, batch_size=2, probes=PROBES).rows
    texts = model.score(prompts, images=images, batch_size=3, probes=PROBES).rows
    for i in (0, 3):
        one = {"images": images[i : i + 1], "probes": PROBES}
        alone = model.generate(prompts[i : i + 1], max_new_tokens=3, **one).rows[0]
        assert_same(rows[i].metrics, alone.metrics)
        assert_same(texts[i].metrics, model.score(prompts[i : i + 1], **one).rows[0].metrics)
    for i, same in ((5, 0), (7, 3)):
        assert_same(rows[i].metrics, rows[same].metrics)
        assert_same(texts[i].metrics, texts[same].metrics)


def test_images_of_prompts_equal_the_argument(model, scored):
    prompts = [Prompt(tokens=tuple(PROMPTS[0]), images=(IMAGES[0],)), Prompt(tokens=tuple(PROMPTS[1]))]
    for images in (None, [None, None]):
        for row, want in zip(model.score(prompts, images=images, probes=PROBES).rows, scored.rows, strict=False):
            assert_same(row.metrics, want.metrics)


@pytest.mark.parametrize(
    ("prompts", "images", "part"),
    [
        (PROMPTS[:1], [[]], "prompt 0: has 0 images and 1 image tokens"),
        (PROMPTS[:1], None, "prompt 0: has 0 images and 1 image tokens"),
        (PROMPTS[:1], [IMAGES[2]], "prompt 0: has 2 images and 1 image tokens"),
        (PROMPTS[:2], [IMAGES[0], IMAGES[0]], "prompt 1: has 1 images and 0 image tokens"),
        (PROMPTS[:2], IMAGES[:1], "images must be a list with one entry for each prompt"),
        (PROMPTS[:1], IMAGES[0], "images must be a list with one entry for each prompt"),
        (PROMPTS[:1], ["nowhere.png"], "nowhere.png: is no image that can be read"),
        ([[1, 45]], None, "id 45 is outside the vocabulary of 45"),
        ("hi", ["a.png", "a.png"], "prompts must be a list"),
    ],
)
def test_images_that_do_not_fit_their_prompts_are_refused(model, prompts, images, part):
    for run in (model.score, model.generate):
        with pytest.raises(PromptError) as error:
            run(prompts, images=images)
        assert part in str(error.value) and "\n" not in str(error.value)


def test_model_without_images_refuses_them():
    without_images = Model("without_images", CONFIG, init_params(CONFIG, jax.random.key(0)))
    with pytest.raises(PromptError, match="prompt 0: has images, and without_images sees none"):
        without_images.score([[1, 2]], images=[picture(9, 9)])


def test_a_deterministic_run_refuses_images(model):
    with pytest.raises(ConfigError, match="deterministic: is on, and prompts have images"):
        model.generate(PROMPTS, images=IMAGES, deterministic=True)
