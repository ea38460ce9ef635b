"""Lowering of the GPU kernels for Hopper without a GPU, which checks layouts, copies and shared memory."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jaxtrace.kernels.gpu_tiles import too_old

from jaxtrace import kernels

pytestmark = pytest.mark.skipif(too_old() is not None, reason=f"GPU kernels: {too_old()}")

ALPHAS = (0.5, 2.0, 5.0)


def kernels_in(function, *shapes):
    """Return the number of Mosaic GPU kernels that a function of arrays [(shape, dtype)] calls, lowered for CUDA."""
    arrays = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    with kernels.compiling_for("gpu"):
        lowered = jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",))
    return lowered.as_text().count("@mosaic_gpu_v2")


@pytest.mark.parametrize(("size", "dtype"), [(5, "float32"), (32_003, "bfloat16"), (128_256, "float16")])
def test_softmax_moments(size, dtype):
    call = functools.partial(kernels.softmax_moments, alphas=ALPHAS)
    assert kernels_in(call, ((3, size), dtype)) == 1
    assert kernels_in(lambda x, t: call(x, temperature=t), ((3, size), dtype), ((3,), jnp.float32)) == 1


@pytest.mark.parametrize(
    ("groups", "rows", "width", "vocabulary", "dtype"),
    [
        (1, 1, 2048, 128_256, "bfloat16"),
        (17, 4, 2048, 128_256, "bfloat16"),
        (7, 1, 288, 32_000, "float32"),
        (13, 3, 768, 50_257, "float32"),
        (1, 2048, 4096, 32_000, "float32"),
    ],
)
def test_unembed_moments(groups, rows, width, vocabulary, dtype):
    operands = ((groups, rows, width), dtype), ((vocabulary, width), dtype)
    assert kernels_in(kernels.unembed_moments, *operands) == 1
    call = functools.partial(kernels.unembed_moments, alphas=ALPHAS, soft_cap=30.0, keep_logits=True)
    assert kernels_in(lambda h, w, t: call(h, w, targets=t), *operands, ((rows,), jnp.int32)) == 1


def cache(dtype, batch, kv_heads, width, slots):
    return ((batch, kv_heads, width, slots), dtype), ((batch, kv_heads, slots, width), dtype), ((batch,), jnp.int32)


@pytest.mark.parametrize(
    ("width", "dtype", "moments", "served"),
    [
        (48, "bfloat16", True, 1),
        (64, "bfloat16", False, 1),
        (256, "bfloat16", True, 1),
        (64, "float32", True, 1),
        (64, "float32", False, 1),
        (256, "float32", True, 0),
    ],
)
def test_decode_attention(width, dtype, moments, served):
    k, v, lengths = cache(dtype, 2, 2, width, 1000)
    call = functools.partial(kernels.decode_attention, scale=0.125, moments=moments, prompt_length=5)
    assert kernels_in(call, ((2, 14, width), dtype), k, v, lengths) == served


@pytest.mark.parametrize(
    ("width", "dtype", "options"),
    [(128, "bfloat16", {}), (64, "bfloat16", {"window": 100, "soft_cap": 50.0}), (128, "float32", {})],
)
def test_prefill_attention(width, dtype, options):
    k, v, start = cache(dtype, 2, 2, width, 512)
    call = functools.partial(kernels.prefill_attention, scale=0.125, prompt_length=5, **options)
    assert kernels_in(call, ((2, 200, 8, width), dtype), k, v, start) == 1


@pytest.mark.parametrize(
    ("queries", "count", "width", "dtype"),
    [(1, 1, 128, "bfloat16"), (1, 1, 64, "float32"), (200, 2, 128, "bfloat16"), (200, 2, 64, "float32")],
)
def test_head_dispersion(queries, count, width, dtype):
    k, _, start = cache(dtype, 2, 2, width, 512)
    call = functools.partial(kernels.head_dispersion, scale=0.125)
    assert kernels_in(call, ((2, queries, 8, width), dtype), k, start) == count
