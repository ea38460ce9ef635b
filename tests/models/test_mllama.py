"""A whole Llama 3.2 Vision against transformers (eager, float32), through a checkpoint on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

import jaxtrace
from jaxtrace import Probes
from jaxtrace.checkpoints.images import tile_visibility
from jaxtrace.engine.measure import forward_flags, measure
from jaxtrace.models.attention import ImageMask
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.decoder import is_stacked
from jaxtrace.models.forward import encode_images, forward
from jaxtrace.models.images import Images
from tests.engine.reference import assert_metrics
from tests.models import mllama_reference
from tests.models.cases import LLAMA3
from tests.models.mllama_reference import IMAGE_TOKEN
from tests.models.parity import assert_relative

TEXT = [1, 17, 5, 33, 8, 21, 40, 3, 12, 30]
SCALED = "the last of five layers is cross-attention, rope is scaled"
CASES = {
    "no image": ({}, TEXT, []),
    "an image in the text": ({}, [*TEXT[:4], IMAGE_TOKEN, *TEXT[4:]], [(2, 1)]),
    "images apart": ({}, [*TEXT[:2], IMAGE_TOKEN, *TEXT[2:5], IMAGE_TOKEN, *TEXT[5:]], [(1, 1), (2, 2)]),
    "images together": ({}, [1, IMAGE_TOKEN, IMAGE_TOKEN, *TEXT], [(1, 2), (4, 1)]),
    SCALED: (
        {"text": {"cross_attention_layers": [0, 3, 4], "rope_parameters": LLAMA3, "num_key_value_heads": 1}},
        [1, IMAGE_TOKEN, *TEXT],
        [(1, 4)],
    ),
    "two of three layers are cross-attention": (
        {"text": {"cross_attention_layers": [1, 2], "num_hidden_layers": 3, "num_key_value_heads": 4}},
        [IMAGE_TOKEN, *TEXT],
        [(3, 1)],
    ),
}


def everything(config, params, tokens, images, visible):
    """Return metrics, logits and residual streams of every position of a sequence [T]."""
    probes = Probes.all()
    start = jnp.zeros(1, jnp.int32)
    image_mask, keys = None, 0
    if images is not None:
        image_mask, keys = ImageMask(images.row_tiles, visible[None]), images.keys(config.vision)
    cache = empty_cache(config, 1, len(tokens), stacked=is_stacked(params), image_keys=keys)
    if images is not None:
        cache = encode_images(config, params, cache, images)
    result = forward(config, params, tokens[None], cache, start, image_mask=image_mask, **forward_flags(config, probes))
    before = jnp.zeros((1, config.num_layers + 1, config.embed_dim))
    following = jnp.roll(tokens[None], -1, axis=1)
    following = jnp.where(following < config.vocab_size, following, -1)  # image tokens are never predicted
    trace, drawable = measure(config, params, result, before, start, probes, targets=following, keep_logits=True)
    metrics = {name: x[0] for name, x in trace.arrays.items()}
    return metrics, drawable.logits[0], result.stream[:, 0]


# Without optimisation: a shorter compile time, the same operations.
compiled = jax.jit(everything, static_argnames="config", compiler_options={"xla_backend_optimization_level": 0})


# The others run nightly: they differ in what is an input of the same program, or in the layout.
DAILY = {("no image", True), ("images apart", True), ("images together", False), (SCALED, False)}


@pytest.mark.parametrize(
    ("case", "stacked"),
    [
        pytest.param(case, stacked, marks=[pytest.mark.nightly] * ((case, stacked) not in DAILY))
        for case in CASES
        for stacked in (False, True)
        if not stacked or case in ("no image", "images apart")
    ],
)
def test_metrics_agree_with_transformers(case, stacked, rng, tmp_path):
    changes, tokens, shapes = CASES[case]
    reference = mllama_reference.tiny(**changes)
    reference.save_pretrained(tmp_path)
    model = jaxtrace.load(str(tmp_path), stacked=stacked)
    reference_images = visible = own_images = None
    if shapes:
        images = mllama_reference.images(rng, reference.config.vision_config, [shapes])
        visible = tile_visibility(tokens, [height * width for height, width in shapes], len(shapes), 4, IMAGE_TOKEN)
        reference_images, own_images = (*images, visible.reshape(len(tokens), len(shapes), 4)), Images(*images)
    run = mllama_reference.run(reference, tokens, reference_images)
    computed, logits, stream = compiled(model.config, model.params, jnp.array(tokens), own_images, visible)
    assert_relative(logits, run.logits, "logits")
    for layer in range(model.config.num_layers + 1):
        assert_relative(stream[layer], run.hidden[layer], f"hidden state {layer}")
    following = np.roll(tokens, -1)
    following[following == IMAGE_TOKEN] = -1
    expected, lens = mllama_reference.metrics(reference, run, following, visible)
    del expected["token"]
    assert_metrics(computed, expected, lens)
    cross = [kind.cross_attention for kind in model.config.kinds]
    absent = np.isnan(computed["attention_entropy"]).all(axis=(0, 2))
    np.testing.assert_array_equal(absent, cross if own_images is None else [False] * len(cross))


def test_generation_from_pictures_agrees_with_transformers(tmp_path):
    """Both sides run from Pillow images to greedy tokens, with their own processors, masks and caches."""
    reference = mllama_reference.tiny()
    reference.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((10, 30), (40, 12), (9, 9))
    ]
    prompts = [[*TEXT[:3], IMAGE_TOKEN, 5, IMAGE_TOKEN, 9], [IMAGE_TOKEN, *TEXT]]
    images = [pictures[:2], pictures[2:]]
    processor = MllamaImageProcessorPil(size={"height": 12, "width": 12}, image_std=[0.2, 0.3, 0.4])
    processor.save_pretrained(tmp_path)
    model = jaxtrace.load(str(tmp_path))
    trace = model.generate(prompts, images=images, max_new_tokens=12, stop_tokens=(), probes=Probes.of("output"))
    for row, prompt, shown in zip(trace.rows, prompts, images, strict=True):
        expected = mllama_reference.greedy(reference, processor, prompt, shown, 12)
        np.testing.assert_array_equal(row.metrics["token"], expected)
