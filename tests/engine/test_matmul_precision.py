"""Precision of matrix products: full float32 of float32 models on every platform, unless a setting says otherwise."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params
from jax.lax import Precision
from jaxtrace.kernels import compiling_for, einsum

from jaxtrace import ConfigError, Probes
from jaxtrace.engine import loop, pool
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.step import decode_step, init_state, prefill, score_step
from jaxtrace.engine.translators import Translators
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.forward import forward_logits
from jaxtrace.models.images import Images
from tests.engine.conftest import CONFIG
from tests.engine.test_images import WITH_IMAGES
from tests.kernels import tpu

ROWS, WIDTH, SLOTS = 2, 16, 64
TEXT = dataclasses.replace(CONFIG, pattern=(LayerKind(window=20, rope=CONFIG.pattern[0].rope),), score_soft_cap=50.0)
PROBES = Probes.of("all", attention_rows=((1, 0),), lens_renyi=True)


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


@pytest.mark.parametrize(("config", "platform"), [(TEXT, "cpu"), (TEXT, "gpu"), (TEXT, "tpu"), (WITH_IMAGES, "tpu")])
def test_every_product_of_a_float32_model_is_in_full_float32(config, platform):
    for name, (function, arguments) in steps(config, jnp.float32).items():
        if name == "gradient" and config.vision is not None:
            continue
        of_float32, others = precisions(function, *arguments, platform=platform)
        expected = set() if name == "start" and config.vision is None else {(Precision.HIGHEST,) * 2}
        assert (of_float32, others) == (expected, set()), name


def test_products_of_a_bfloat16_model_do_not_pay():
    for name in ("prefill", "score", "decode"):
        function, arguments = steps(TEXT, jnp.bfloat16)[name]
        with jax.default_matmul_precision("highest"):
            assert precisions(function, *arguments)[1] == {(Precision.DEFAULT,) * 2}, name


@pytest.mark.parametrize(("setting", "chosen"), [("default", Precision.DEFAULT), ("high", Precision.HIGH)])
def test_jax_setting_decides_for_functions_that_a_user_calls(setting, chosen):
    """A TPU kernel has no three passes: it computes in full float32."""
    function, arguments = steps(TEXT, jnp.float32)["decode"]
    with jax.default_matmul_precision(setting):
        found = precisions(function, *arguments)[0]
    assert found == {(chosen,) * 2} | ({(Precision.HIGHEST,) * 2} if setting == "high" else set())


def test_a_planted_product_at_the_default_precision_is_found():
    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert precisions(lambda x: einsum("ij,kj->ik", x, x) @ x, x)[0] == {(Precision.HIGHEST,) * 2, None}


def test_lowered_programs_for_gpus_carry_the_precision():
    function, arguments = steps(TEXT, jnp.float32)["decode"]
    with compiling_for("gpu"):
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line]
    assert lines and all("precision = [HIGHEST, HIGHEST]" in line for line in lines)


@pytest.mark.parametrize(("setting", "chosen"), [(None, "highest"), ("high", "high")])
def test_compiled_programs_for_tpus_carry_the_precision(setting, chosen):
    pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")
    function, arguments = steps(dataclasses.replace(TEXT, num_layers=1), jnp.float32)["decode"]
    with compiling_for("tpu"), jax.default_matmul_precision(setting):
        text = tpu.compile_for("v5e:2x2", function, *arguments).as_text()
    lines = [line for line in text.splitlines() if re.search(r"= \S+ (dot|convolution)\(", line)]
    assert lines and all(f"operand_precision={{{chosen},{chosen}}}" in line for line in lines)


@pytest.mark.parametrize(
    ("module", "program", "verb"),
    [
        (pool, "init_rows", "generate"),
        (pool, "_prefill_chunk", "generate"),
        (loop, "decode_chunk", "generate"),
        (loop, "score_chunk", "score"),
    ],
)
def test_every_program_of_a_run_is_traced_at_its_setting(model, monkeypatch, module, program, verb):
    class Traced(Exception):
        pass

    def trace(*_, **__):
        raise Traced(jax.config.jax_default_matmul_precision)

    trace.lower = trace.eval_shape = trace
    monkeypatch.setattr(module, program, trace)
    for setting, expected in (("high", "high"), ("auto", None)):
        with pytest.raises(Traced, match=f"^{expected}$"):
            getattr(model, verb)([[1, 2, 3]], matmul_precision=setting, probes=Probes.none())


def test_a_run_records_its_precision(model):
    info = lambda **options: model.info("generate", Settings(Probes.none(), **options))["matmul_precision"]  # noqa: E731
    assert (info(), info(matmul_precision="default")) == ("highest", "default")
    with jax.default_matmul_precision("high"):
        assert (info(), info(matmul_precision="default")) == ("high", "default")


def test_an_unknown_precision_is_refused(model):
    with pytest.raises(ConfigError, match="matmul_precision is exact; it must be 'auto', 'default', 'high'"):
        model.generate([[1, 2]], matmul_precision="exact")
