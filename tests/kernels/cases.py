"""Rows that are numerically hard for a softmax, the error bounds of all implementations, and the comparison."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import Unsupported, decode_attention, head_dispersion, prefill_attention
from jaxtrace.kernels.decode_attention.api import OPERATION as DECODE
from jaxtrace.kernels.gpu_tiles import too_old
from jaxtrace.kernels.head_dispersion.api import OPERATION as DISPERSION_OPERATION
from jaxtrace.kernels.prefill_attention.api import OPERATION as PREFILL

# Absolute bounds against float64, in nats and nats².
ENTROPY = 1e-5
VARENTROPY = 1e-4
RENYI = 1e-5
PROBABILITY = 1e-5
LOG_PROBABILITY = 1e-5
DISPERSION = 2e-5
SELF_CERTAINTY = 1e-5  # absolute and relative

DTYPES = ("float32", "bfloat16")


def implementations(operation):
    """Return the names of the implementations that run on this machine."""
    platform = jax.default_backend()
    names = [name for name, one in operation.implementations.items() if one.refusal(platform) is None]
    return [name for name in names if not (name.startswith("pallas_gpu") and too_old())]


@functools.cache
def compiled(function, **options):
    """Return `function` with these options under `jax.jit`, one object per set of options, so that it compiles once."""
    return jax.jit(functools.partial(function, **options))


def served(call, *args, **kwargs):
    """Return the call's result; skips the test if a GPU's shared memory is too small for it."""
    try:
        return call(*args, **kwargs)
    except Unsupported as refusal:
        if "do not fit shared memory" not in str(refusal):
            raise
        pytest.skip(str(refusal))


def decode(q, k, v, start, **options):
    """Return {metric: [B, 1, N]} of decode attention of the first queries, and the sum of its output."""
    output, moments = decode_attention(q[:, 0], k, v, start + 1, **options)
    return {name: x[:, None] for name, x in _metrics(output, moments).items()}


def prefill(q, k, v, start, **options):
    """Return {metric: [B, T, N]} of prefill attention, and the sum of its output."""
    return _metrics(*prefill_attention(q, k, v, start, **options))


def _metrics(output, moments):
    moments = {name: x for name, x in vars(moments).items() if x is not None}
    return {"output": output.sum(-1), **moments}


def dispersion(q, k, v, start, **options):
    """Return the divergence [B, T, 1] of the heads."""
    return {"head_jsd": head_dispersion(q, k, start, **options)[..., None]}


ATTENTION = ((decode, DECODE), (prefill, PREFILL), (dispersion, DISPERSION_OPERATION))


def logit_rows(size, seed=0):
    """Return {name: row [size]} of float32 logits; −inf, −1e30 and the lowest float mark absent entries."""
    rng = np.random.default_rng(seed + size)
    peak = int(rng.integers(size))
    is_peak = np.arange(size) == peak
    present = (rng.random(size) < 0.3) | is_peak
    normal = rng.normal(0, 2, size)
    rows = {
        "normal": normal,
        "normal + 300": normal + 300,
        "normal - 300": normal - 300,
        "wide": rng.normal(0, 6, size),
        "heavy tail": np.clip(rng.standard_cauchy(size), -1e3, 1e3),
        "peaked": np.where(is_peak, 45, normal),
        "peaked + 300": np.where(is_peak, 45, normal) + 300,
        "far ahead": np.where(is_peak, 1000.0, 0.0),
        "ramp": np.linspace(0, -80, size),
        "uniform": np.full(size, 7.25),
        "uniform + 300": np.full(size, 300.0),
        "one hot": np.where(is_peak, 3.0, -np.inf),
        "uniform support": np.where(present, 1.5, -np.inf),
        "masked -inf": np.where(present, normal, -np.inf),
        "masked -1e30": np.where(present, normal, -1e30),
        "masked lowest": np.where(present, normal, np.finfo(np.float32).min),
        "masked -1e9": np.where(present, normal, -1e9),
        "empty -inf": np.full(size, -np.inf),
        "empty lowest": np.full(size, np.finfo(np.float32).min),
    }
    for lead in (1, 5, 7, 9, 12):
        rows[f"plateau {lead} below one"] = np.where(is_peak, float(lead), 0.0)
    rows["plateau 7 below the first"] = np.where(np.arange(size) == 0, 7.0, 0.0)
    return {name: row.astype(np.float32) for name, row in rows.items()}


def as_oracle(x):
    """Return the float64 values of a JAX array, absent entries at −inf."""
    x = np.asarray(jnp.asarray(x).astype(jnp.float32), np.float64)
    return np.where(x <= -9e29, -np.inf, x)


def on_grid(rng, shape, sd, step):
    """Return normal numbers rounded to multiples of `step`: their products and sums are exact in float32."""
    return np.round(rng.normal(0, sd, shape) / step).astype(np.float32) * np.float32(step)


def assert_near_angle(got, want, names=None):
    """Check `fisher_rao`, whose arc cosine is steep near 0."""
    flat = np.asarray(want) < 0.02
    for rows, bound in ((~flat, 1e-5), (flat, 5e-4)):
        chosen = np.asarray(names)[rows].tolist() if names else None
        assert_near(np.asarray(got)[rows], np.asarray(want)[rows], bound, "fisher_rao", chosen)


def assert_near(got, want, bound, metric, names=None, relative=0.0):
    """Check that every entry is finite and within `bound` (plus `relative` times its size); name the rows that fail."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{metric}: shape {got.shape}, expected {want.shape}"
    error = np.abs(got - want) - relative * np.abs(want)
    failed = np.argwhere(~(error <= bound))
    if len(failed):
        where = [names[i[0]] if names else tuple(map(int, i)) for i in failed[:10]]
        pairs = [(got[tuple(i)], want[tuple(i)]) for i in failed[:10]]
        lines = [f"  {at}: {x:.9g}, expected {y:.9g}" for at, (x, y) in zip(where, pairs, strict=True)]
        raise AssertionError(f"{metric}: {len(failed)} of {got.size} off by more than {bound:g}\n" + "\n".join(lines))
