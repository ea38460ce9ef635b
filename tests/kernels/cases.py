"""Rows that are hard on a softmax, the bounds all implementations are held to, and the comparison."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import Unsupported
from jaxtrace.kernels.gpu_tiles import too_old

# Absolute bounds against float64, in nats and nats².
ENTROPY = 1e-5
VARENTROPY = 1e-4
RENYI = 1e-5
PROBABILITY = 1e-5
LOG_PROBABILITY = 1e-5
DISPERSION = 2e-5

DTYPES = ("float32", "bfloat16")


def implementations(operation):
    """Names of the implementations that run on this machine."""
    platform = jax.default_backend()
    names = [name for name, one in operation.implementations.items() if one.refusal(platform) is None]
    return [name for name in names if not (name.startswith("pallas_gpu") and too_old())]


def served(call, *args):
    """The call's result; skips the test where a GPU's shared memory is too small for it."""
    try:
        return call(*args)
    except Unsupported as refusal:
        if "do not fit shared memory" not in str(refusal):
            raise
        pytest.skip(str(refusal))


def logit_rows(size, seed=0):
    """{name: row [size]} of float32 logits; −inf, −1e30 and the lowest float mark absent entries."""
    rng = np.random.default_rng(seed + size)
    at = int(rng.integers(size))
    here = np.arange(size) == at
    some = (rng.random(size) < 0.3) | here
    normal = rng.normal(0, 2, size)
    rows = {
        "normal": normal,
        "normal + 300": normal + 300,
        "normal - 300": normal - 300,
        "wide": rng.normal(0, 6, size),
        "heavy tail": np.clip(rng.standard_cauchy(size), -1e3, 1e3),
        "peaked": np.where(here, 45, normal),
        "peaked + 300": np.where(here, 45, normal) + 300,
        "far ahead": np.where(here, 1000.0, 0.0),
        "ramp": np.linspace(0, -80, size),
        "uniform": np.full(size, 7.25),
        "uniform + 300": np.full(size, 300.0),
        "one hot": np.where(here, 3.0, -np.inf),
        "uniform support": np.where(some, 1.5, -np.inf),
        "masked -inf": np.where(some, normal, -np.inf),
        "masked -1e30": np.where(some, normal, -1e30),
        "masked lowest": np.where(some, normal, np.finfo(np.float32).min),
        "masked -1e9": np.where(some, normal, -1e9),
        "empty -inf": np.full(size, -np.inf),
        "empty lowest": np.full(size, np.finfo(np.float32).min),
    }
    for lead in (1, 5, 7, 9, 12):
        rows[f"plateau {lead} below one"] = np.where(here, float(lead), 0.0)
    rows["plateau 7 below the first"] = np.where(np.arange(size) == 0, 7.0, 0.0)
    return {name: row.astype(np.float32) for name, row in rows.items()}


def as_oracle(x):
    """The float64 values of a JAX array, absent entries at −inf."""
    x = np.asarray(jnp.asarray(x).astype(jnp.float32), np.float64)
    return np.where(x <= -9e29, -np.inf, x)


def on_grid(rng, shape, sd, step):
    """Normal numbers rounded to multiples of `step`: their products and sums are exact in float32."""
    return np.round(rng.normal(0, sd, shape) / step).astype(np.float32) * np.float32(step)


def assert_near(got, want, bound, what, names=None, relative=0.0):
    """Every entry within `bound` (plus `relative` times its size), and finite; says which row is not."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    error = np.abs(got - want) - relative * np.abs(want)
    bad = np.argwhere(~(error <= bound))
    if len(bad):
        where = [names[i[0]] if names else tuple(map(int, i)) for i in bad[:10]]
        pairs = [(got[tuple(i)], want[tuple(i)]) for i in bad[:10]]
        lines = [f"  {at}: {x:.9g}, expected {y:.9g}" for at, (x, y) in zip(where, pairs, strict=True)]
        raise AssertionError(f"{what}: {len(bad)} of {got.size} off by more than {bound:g}\n" + "\n".join(lines))
