"""Compilation of every TPU kernel, which must store neither logits nor scores.

All shapes compile for one generation of TPUs, and the first shape of each kernel for every generation.
"""

import jax
import jax.numpy as jnp
import pytest
from jaxtrace.kernels import decode_attention, head_dispersion, prefill_attention, softmax_moments, unembed_moments
from jaxtrace.kernels.dispatch import compiling_for

from . import tpu

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

ALPHAS = (0.5, 2.0, 5.0)
VOCABULARY = 128_256


@pytest.fixture(autouse=True)
def on_tpu():
    with compiling_for("tpu"):
        yield


def generations(shapes):
    """Return (topology, shape): all shapes on v5e, the first one on the other generations."""
    others = [topology for topology in tpu.TOPOLOGIES if not topology.startswith("v5e")]
    return [("v5e:2x2", shape) for shape in shapes] + [(topology, shapes[0]) for topology in others]


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


# rows, size, dtype
SOFTMAX = [(1, VOCABULARY, "float32"), (17, 50_257, "bfloat16")]


@pytest.mark.parametrize(("topology", "shape"), generations(SOFTMAX), ids=str)
def test_softmax_moments(topology, shape):
    rows, size, dtype = shape

    def run(logits, temperature):
        return softmax_moments(logits, temperature=temperature, alphas=ALPHAS)

    compiled = tpu.compile_for(topology, run, shaped(rows, size, dtype=dtype), shaped(rows))
    tpu.assert_fused(compiled, 4 * rows * size)


# groups, rows, width, tokens, dtype, keep_logits: decode with all lenses and without, scoring, a wide model, odd sizes
UNEMBED = [
    (17, 1, 2048, VOCABULARY, "bfloat16", False),
    (1, 16, 2048, VOCABULARY, "float32", True),
    (17, 241, 2048, VOCABULARY, "bfloat16", True),
    (81, 2, 8192, VOCABULARY, "bfloat16", False),
    (3, 5, 640, 50_257, "float32", True),
]


@pytest.mark.parametrize(("topology", "shape"), generations(UNEMBED), ids=str)
def test_unembed_moments(topology, shape):
    groups, rows, width, tokens, dtype, keep_logits = shape

    def run(hidden, unembedding, targets):
        return unembed_moments(
            hidden, unembedding, targets=targets, alphas=ALPHAS, soft_cap=30.0, keep_logits=keep_logits
        )

    arrays = shaped(groups, rows, width, dtype=dtype), shaped(tokens, width, dtype=dtype)
    compiled = tpu.compile_for(topology, run, *arrays, shaped(rows, dtype=jnp.int32))
    tpu.assert_fused(compiled, 4 * groups * rows * tokens)


# batch, queries (None: decode), KV heads, group, head_dim, slots, dtype, options
ATTENTION = [
    (16, None, 8, 4, 64, 4096, "bfloat16", {}),
    (3, None, 4, 7, 48, 3333, "float32", {"window": 100, "moments": False}),
    (16, None, 8, 4, 128, 4096, "float32", {"window": 512, "soft_cap": 50.0}),
    (1, 4096, 8, 4, 64, 4096, "bfloat16", {}),
    (1, 4096, 8, 4, 128, 4096, "bfloat16", {"window": 1024, "moments": False}),
    (2, 600, 1, 8, 256, 4096, "float32", {"soft_cap": 50.0}),
    (16, None, 8, 8, 64, 4096, "bfloat16", {"window": 128, "moments": False, "learned_sink": True}),
    (1, 600, 8, 8, 64, 4096, "bfloat16", {"moments": False, "learned_sink": True}),
]


@pytest.mark.parametrize(("topology", "shape"), generations(ATTENTION), ids=str)
def test_attention(topology, shape):
    batch, queries, kv_heads, group, head_dim, slots, dtype, options = shape
    attend = prefill_attention if queries else decode_attention
    sinks = [shaped(kv_heads * group, dtype=dtype)] if "learned_sink" in options else []
    options = {name: x for name, x in options.items() if name != "learned_sink"}

    def run(q, k, v, rows, prompt_length, sinks=None):
        return attend(q, k, v, rows, scale=0.125, learned_sink=sinks, prompt_length=prompt_length, **options)

    q = shaped(batch, *([queries] if queries else []), kv_heads * group, head_dim, dtype=dtype)
    k, v = (shaped(batch, kv_heads, *size, dtype=dtype) for size in ((head_dim, slots), (slots, head_dim)))
    rows = shaped(batch, dtype=jnp.int32)
    compiled = tpu.compile_for(topology, run, q, k, v, rows, rows, *sinks)
    tpu.assert_fused(compiled, 4 * batch * (queries or 1) * kv_heads * group * slots)


@pytest.mark.parametrize(("topology", "shape"), generations([ATTENTION[0], ATTENTION[2], ATTENTION[5]]), ids=str)
def test_head_dispersion(topology, shape):
    batch, queries, kv_heads, group, head_dim, slots, dtype, _ = shape

    def run(q, k, start):
        return head_dispersion(q, k, start, scale=0.125, window=1000)

    q = shaped(batch, queries or 1, kv_heads * group, head_dim, dtype=dtype)
    k = shaped(batch, kv_heads, head_dim, slots, dtype=dtype)
    compiled = tpu.compile_for(topology, run, q, k, shaped(batch, dtype=jnp.int32))
    tpu.assert_fused(compiled, 4 * batch * (queries or 1) * kv_heads * group * slots)
