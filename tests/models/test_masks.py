"""Ablated blocks and heads: the same as zeroing their last weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import ConfigError, Interventions, Model, Probes, init_params
from jaxtrace.compilation import counted
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.decoder import stack_layers
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.forward import forward
from tests.engine.reference import assert_same, at
from tests.models.cases import CASES, SMALL

# Windows, soft-caps and post-norms; biases everywhere and parallel blocks; two periods of layers and a tail; norms only
# after each part of a block.
KINDS = {
    "gemma2": "as published",
    "gpt_neox": "as published",
    "gemma3_text": "two periods and a tail",
    "olmo3": "a period and a tail",
}
LAYERS, HEADS = (2,), ((1, 0), (1, 3), (3, 2))
TOKENS = 9  # longer than the windows of 5


def random_model(family):
    """Return a decoder with random weights, norms and biases."""
    config = FAMILIES[family].decoder_config(
        {"model_type": family} | SMALL[family] | CASES[family, KINDS[family]], family
    )
    rng = np.random.default_rng(0)
    drawn = init_params(config, jax.random.key(0))
    return Model(family, config, jax.tree.map(lambda x: jnp.float32(x + rng.normal(0, 0.2, x.shape)), drawn))


def zeroed(params, layers, heads):
    """Zero the last weights of some blocks and heads; a post-norm of 0 is 0."""
    blocks = [jax.tree.map(np.array, block) for block in params["layers"]]
    for layer in layers:
        for part, names in (("attention", ("o", "o_bias")), ("feed_forward", ("down", "down_bias"))):
            for name in {*names} & {*blocks[layer - 1][part]}:
                blocks[layer - 1][part][name][...] = 0
    for layer, head in heads:
        blocks[layer - 1]["attention"]["o"][:, head] = 0
    return {**params, "layers": blocks}


@pytest.mark.parametrize(
    ("family", "layouts"),
    [("gemma2", "us"), ("gpt_neox", "u"), ("gemma3_text", "s"), pytest.param("olmo3", "us", marks=pytest.mark.nightly)],
)
def test_ablated_blocks_and_heads_add_nothing(family, layouts, rng):
    model = random_model(family)
    config, tokens = model.config, rng.integers(0, model.config.vocab_size, (2, TOKENS))
    start, every = jnp.zeros(2, jnp.int32), tuple(range(config.num_layers + 1))
    masks, nothing = Interventions.of(config, LAYERS, HEADS), Interventions.of(config)
    for stacked in (layout == "s" for layout in layouts):
        cache = empty_cache(config, 2, TOKENS, stacked=stacked)

        @jax.jit
        def residuals(params, masks, cache=cache):
            return forward(config, params, tokens, cache, start, stream=every, interventions=masks).stream

        laid_out = functools.partial(stack_layers, config) if stacked else lambda params: params
        params, zeros = laid_out(model.params), laid_out(zeroed(model.params, LAYERS, HEADS))
        plain, ablated, expected = residuals(params, nothing), residuals(params, masks), residuals(zeros, nothing)
        np.testing.assert_allclose(ablated, expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(ablated[2], ablated[1])  # exactly
        assert np.abs(plain - ablated).max() > 0.01 * np.abs(plain).max()


@pytest.fixture(scope="module")
def windows():
    """Return a decoder with windows, soft-caps and post-norms, and prompts for it."""
    model = random_model("gemma2")
    prompts = np.random.default_rng(1).integers(0, model.config.vocab_size, (3, TOKENS)).tolist()
    return model, prompts


def test_an_ablated_model_generates_and_scores_the_same(windows):
    model, prompts = windows
    options = {"interventions": Interventions.of(model.config, LAYERS, HEADS)}
    trace = model.generate(prompts, max_new_tokens=4, **options)
    assert trace.info["windows"] == [kind.window for kind in model.config.kinds] != [None] * model.config.num_layers
    assert trace.info["left_out"] == {"layers": [2], "heads": [[1, 0], [1, 3], [3, 2]]}
    generated = trace.rows
    texts = [[*row.prompt_tokens, *row.metrics["token"]] for row in generated]
    scored = model.score(texts, prompt_lengths=[TOKENS] * len(texts), **options).rows
    for row, again in zip(generated, scored, strict=True):
        assert_same(row.metrics, at(again.metrics, slice(TOKENS - 1, -1)))
    nothing = Interventions.of(model.config, ())  # a mask, so that the run shares the programs of the ablated one
    zeros = Model("zeroed", model.config, zeroed(model.params, LAYERS, HEADS))
    zeros = zeros.generate(prompts, max_new_tokens=4, interventions=nothing)
    for row, again in zip(generated, zeros.rows, strict=True):
        np.testing.assert_array_equal(row.metrics["token"], again.metrics["token"])
        np.testing.assert_allclose(row.metrics["lens_entropy"], again.metrics["lens_entropy"], atol=1e-4)


def test_all_ablations_share_one_program(windows):
    model, prompts = windows
    options = {"max_new_tokens": 2, "probes": Probes.of("lens")}

    def entropies(layers):
        masks = Interventions.of(model.config, layers)
        return [row.metrics["lens_entropy"] for row in model.generate(prompts, interventions=masks, **options).rows]

    nothing = entropies(())
    with counted() as compiled:
        others = [entropies(layers) for layers in ((1,), (2, 3), (1, 2, 3))]
    assert compiled.programs == 0
    for entropy in others:
        assert np.abs(np.array(entropy) - nothing).max() > 1e-3
    plain = model.generate(prompts, **options).rows
    np.testing.assert_allclose([row.metrics["lens_entropy"] for row in plain], nothing, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda config: Interventions.of(config, [4]), "layer 4 does not exist; choose from 1 to 3"),
        (lambda config: Interventions.of(config, heads=[(1, 4)]), "head 4 of layer 1 does not exist.* heads 0 to 3"),
        (lambda config: Interventions(layers=np.zeros(2, bool)), r"layers is bool \[2\]; it must be bool \[3\]"),
        (lambda config: Interventions(layers=np.zeros(3)), r"layers is float32 \[3\]; it must be bool"),
        (
            lambda config: Interventions(heads=np.zeros((3, 2), bool)),
            r"heads is bool \[3, 2\]; it must be bool \[3, 4\]",
        ),
    ],
)
def test_masks_of_another_decoder_are_refused(windows, make, message):
    model, prompts = windows
    with pytest.raises(ConfigError, match=message) as error:
        model.generate(prompts, interventions=make(model.config))
    assert "\n" not in str(error.value)
