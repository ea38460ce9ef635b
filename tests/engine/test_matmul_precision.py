"""Precision of matrix products: full float32 of float32 models on every platform, unless a setting says otherwise."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params
from jax.lax import Precision
from jaxtrace.kernels import compiling_for, einsum, unembed_moments

from jaxtrace import ConfigError, Probes, init_params
from jaxtrace.engine.step import decode_step, init_state, prefill, score_step
from jaxtrace.engine.translators import Translators
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.forward import forward_logits
from jaxtrace.models.images import Images
from jaxtrace.planning.plan import plan
from tests.engine.conftest import CONFIG
from tests.engine.test_images import WITH_IMAGES

ROWS, WIDTH, SLOTS = 2, 16, 64
TEXT = dataclasses.replace(CONFIG, pattern=(LayerKind(window=20, rope=CONFIG.pattern[0].rope),), score_soft_cap=50.0)
PROBES = Probes.of("all", attention_rows=((1, 0),), top_tokens=2, lens_renyi=True, residuals=(1,))


def products(jaxpr):
    """Yield (dtypes of the operands, precision) of every product of a program, those inside of kernels included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield {str(x.aval.dtype) for x in equation.invars}, equation.params["precision"]
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def precisions(function, *shapes, platform="tpu"):
    """Return the precisions of the products with a float32 operand, and those of the other products."""
    with compiling_for(platform):
        found = list(products(jax.make_jaxpr(function)(*shapes).jaxpr))
    of_float32 = {precision for dtypes, precision in found if "float32" in dtypes}
    return of_float32, {precision for dtypes, precision in found if "float32" not in dtypes}


def steps(config, dtype):
    """Return the programs of a run and their arguments: {name: (function, arguments)}."""
    shaped = lambda *shape, dtype=jnp.int32: jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
    params = jax.tree.map(lambda x: shaped(*x.shape, dtype=dtype), abstract_params(config))
    images, visible = None, None
    if config.vision is not None:
        tiles, side = config.vision.max_tiles, config.vision.image_size
        pixels = shaped(ROWS, 1, tiles, config.vision.channels, side, side, dtype=jnp.float32)
        images = Images(pixels, shaped(ROWS, 1), shaped(ROWS, 1, tiles, dtype=jnp.bool_))
        visible = shaped(ROWS, WIDTH, tiles, dtype=jnp.bool_)
    start = functools.partial(init_state, config, batch=ROWS, slots=SLOTS, probes=PROBES)
    state = jax.eval_shape(lambda params, images: start(params, images=images), params, images)
    lens = jax.tree.map(lambda x: shaped(*x.shape, dtype=dtype), jax.eval_shape(lambda: Translators.zeros(config)))
    text = shaped(ROWS, WIDTH), shaped(ROWS)
    static = {"config": config, "probes": PROBES}
    return {
        "start": (lambda params, images: start(params, images=images), (params, images)),
        "prefill": (functools.partial(prefill, **static), (params, state, *text, visible)),
        "score": (functools.partial(score_step, **static), (params, state, *text, text[0], visible, None, lens)),
        "decode": (functools.partial(decode_step, **static), (params, state, None, None, lens)),
        "gradient": (jax.grad(lambda params, tokens: forward_logits(config, params, tokens).sum()), (params, text[0])),
    }


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("config", [TEXT, WITH_IMAGES], ids=["text", "images"])
def test_every_product_of_a_float32_model_is_in_full_float32(config, platform):
    for name, (function, arguments) in steps(config, jnp.float32).items():
        if name == "gradient" and config.vision is not None:
            continue
        of_float32, others = precisions(function, *arguments, platform=platform)
        expected = set() if name == "start" and config.vision is None else {(Precision.HIGHEST,) * 2}
        assert (of_float32, others) == (expected, set()), name


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_products_of_a_bfloat16_model_do_not_pay(platform):
    """Only the mean of the heads' float32 weights is float32."""
    for name, (function, arguments) in steps(TEXT, jnp.bfloat16).items():
        for setting in (None, "highest"):
            with jax.default_matmul_precision(setting):
                of_float32, others = precisions(function, *arguments, platform=platform)
            assert others <= {(Precision.DEFAULT,) * 2}, name
            assert of_float32 <= {(Precision.HIGHEST,) * 2}, name


@pytest.mark.parametrize(
    ("setting", "chosen"), [("default", Precision.DEFAULT), ("high", Precision.HIGH), ("highest", Precision.HIGHEST)]
)
def test_jax_setting_decides_for_functions_that_a_user_calls(setting, chosen):
    for platform in ("gpu", "tpu"):
        for name, (function, arguments) in steps(TEXT, jnp.float32).items():
            with jax.default_matmul_precision(setting):
                of_float32, _ = precisions(function, *arguments, platform=platform)
            # A TPU kernel has no three passes: it computes in full float32.
            in_kernels = {(Precision.HIGHEST,) * 2} if setting == "high" and platform == "tpu" else set()
            assert of_float32 <= {(chosen,) * 2} | in_kernels, name


def test_a_planted_product_at_the_default_precision_is_found():
    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert precisions(lambda x: einsum("ij,kj->ik", x, x) @ x, x)[0] == {(Precision.HIGHEST,) * 2, None}


def test_lowered_programs_for_gpus_carry_the_precision():
    function, arguments = steps(TEXT, jnp.float32)["decode"]
    with compiling_for("gpu"):
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line]
    assert lines and all("precision = [HIGHEST, HIGHEST]" in line for line in lines)
