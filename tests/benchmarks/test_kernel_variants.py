"""Baselines of the kernels compute the same results, and the bytes of each variant are counted by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels.dispatch import Implementation
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX

from benchmarks.kernel_shapes import parse_shape
from benchmarks.kernel_variants import NO_MOMENTS, UNFUSED, usual_implementations, variants

pytestmark = pytest.mark.slow

TEXTS = {
    "softmax_moments": "R=3,V=50",
    "unembed_moments": "G=2,R=3,D=8,V=50",
    "decode_attention": "B=2,S=9,N=4,K=2,H=16",
    "prefill_attention": "B=2,T=5,S=9,N=4,K=2,H=16",
    "head_dispersion": "B=2,T=5,S=9,N=4,K=2,H=16",
}


@functools.cache
def all_variants(op, dtype="float32"):
    timed, refused = variants(op, parse_shape(TEXTS[op], op), dtype, ["xla"], [NO_MOMENTS, UNFUSED])
    assert not refused
    return timed


def run(variant):
    return jax.jit(variant.function)(*variant.arguments)


def near(got, want):
    np.testing.assert_allclose(got, want, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("op", TEXTS)
def test_every_variant_runs_in_bfloat16(op):
    for variant in all_variants(op, "bfloat16").values():
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(run(variant)))


def test_unfused_softmax_agrees():
    by_name = all_variants("softmax_moments")
    ours, theirs = run(by_name["xla"]), run(by_name[UNFUSED])
    for name in ("entropy", "varentropy", "renyi"):
        near(theirs[name], getattr(ours.moments, name))
    near(theirs["top1"], ours.top1)
    near(theirs["top1_prob"], ours.moments.p_max)
    for name in ("top1_top2_gap", "self_certainty", "fisher_rao"):
        near(theirs[name], getattr(ours, name))


def test_unfused_unembed_agrees():
    by_name = all_variants("unembed_moments")
    ours, theirs = run(by_name["xla"]), run(by_name[UNFUSED])
    near(theirs["entropy"], ours.moments.entropy)
    near(theirs["varentropy"], ours.moments.varentropy)
    near(theirs["top1_prob"], ours.moments.p_max)
    near(theirs["logprob"], ours.target_logprob)
    for name in ("renyi", "top1", "kl", "top1_top2_gap", "self_certainty", "fisher_rao"):
        near(theirs[name], getattr(ours, name))


@pytest.mark.parametrize("op", ["decode_attention", "prefill_attention"])
def test_attention_baselines_agree(op):
    by_name = all_variants(op)
    out, moments = run(by_name["xla"])
    theirs, metrics = run(by_name[UNFUSED])
    near(theirs.reshape(out.shape), out)
    near(run(by_name[f"{NO_MOMENTS}/dot_product_attention"]).reshape(out.shape), out)
    near(run(by_name[f"{NO_MOMENTS}/xla"])[0], out)
    for name, value in metrics.items():  # [B, K, G, T], and [B, T, N] or [B, N]
        b, k, g, t = value.shape
        value = value.transpose(0, 3, 1, 2).reshape(b, t, k * g)
        near(value.reshape(getattr(moments, name).shape), getattr(moments, name))


def test_unfused_dispersion_agrees():
    by_name = all_variants("head_dispersion")
    near(run(by_name[UNFUSED]), run(by_name["xla"]))


def test_bytes_of_softmax_moments():
    rows, size = 3, 50
    by_name = all_variants("softmax_moments", "bfloat16")
    assert (
        by_name["xla"].moved == rows * size * 2 + rows * (4 + 3 + 4) * 4
    )  # m l a b, three r, top1, gap, two distances
    assert by_name[f"{NO_MOMENTS}/logsumexp"].moved == rows * size * 2 + rows * 4


def test_bytes_of_unembed_moments():
    groups, rows, width, size = 2, 3, 8, 50
    read = (groups * rows + size) * width * 2
    by_name = all_variants("unembed_moments", "bfloat16")
    of_each, of_output = 4 + 2, 3 + 4  # m l a b, top1, kl; three renyi, gap, two distances, target
    assert by_name["xla"].moved == read + rows * 4 + (groups * of_each + of_output) * rows * 4
    assert by_name[f"{NO_MOMENTS}/stored-logits"].moved == read + groups * rows * size * 4
    assert by_name[f"{NO_MOMENTS}/largest-logits"].moved == read + groups * rows * 4


def test_bytes_of_decode_attention():
    b, s, n, k, h = 2, 9, 4, 2, 16
    by_name = all_variants("decode_attention", "bfloat16")
    moved = (2 * b * n * h + 2 * b * k * s * h) * 2 + b * 4
    assert by_name[f"{NO_MOMENTS}/xla"].moved == moved
    assert by_name["xla"].moved == moved + 9 * b * n * 4  # nine metrics of each head


def test_bytes_of_head_dispersion():
    b, t, s, n, k, h = 2, 5, 9, 4, 2, 16
    assert all_variants("head_dispersion")["xla"].moved == (b * t * n * h + b * k * s * h) * 4 + b * 4 + b * t * 4


def test_usual_implementations_run_here(monkeypatch):
    here = Implementation(lambda *_, **__: None)
    for name, implementation in {
        "elsewhere": Implementation(lambda *_, **__: None, ("abacus",)),
        "here_interpret": here,
        "here": here,
    }.items():
        monkeypatch.setitem(SOFTMAX.implementations, name, implementation)
    usual = usual_implementations("softmax_moments")
    assert {"xla", "here"} <= set(usual)
    assert not {"reference", "elsewhere", "here_interpret"} & set(usual)
