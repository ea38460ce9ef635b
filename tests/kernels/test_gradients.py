"""Gradients of the metrics: closed forms for logits, finite differences of the oracle for queries and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import decode_attention, head_dispersion, prefill_attention, softmax_moments, unembed_moments
from jaxtrace.kernels.decode_attention.api import OPERATION as DECODE
from jaxtrace.kernels.head_dispersion.api import OPERATION as DISPERSION
from jaxtrace.kernels.prefill_attention.api import OPERATION as PREFILL
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from jaxtrace.kernels.unembed_moments.api import OPERATION as UNEMBED

from tests import oracle

from . import cases
from .test_attention import BOUNDS

METRICS, DEFINITIONS = tuple(BOUNDS), [definition for definition, _ in BOUNDS.values()]
STEP = 1e-5
ROWS = cases.logit_rows(200)
WINDOWED = {"window": 3, "soft_cap": 4.0}


def with_options(operation):
    """Return (implementation, options): every one with a window and a soft cap, and XLA without.

    The gradients of a Pallas kernel are the ones of XLA, so that one call shows that they are used.
    """
    names = cases.implementations(operation)
    return [(name, WINDOWED) for name in names] + [("xla", {"window": None, "soft_cap": None})]


def along(function, x, direction):
    """Return the central difference of a float64 function at x."""
    return (function(x + STEP * direction) - function(x - STEP * direction)) / (2 * STEP)


def slope(logits, metric):
    """Return d entropy / d s = −p (ln p + H), or d varentropy / d s = p (g² + 2 g − V) with g = ln p + H."""
    p = oracle.softmax(logits)
    g = np.where(p > 0, oracle.log_softmax(logits), 0) + oracle.entropy_of(p)
    return -p * g if metric == "entropy" else p * (g**2 + 2 * g - oracle.varentropy_of(p))


@pytest.mark.parametrize("metric", ["entropy", "varentropy"])
@pytest.mark.parametrize("implementation", cases.implementations(SOFTMAX))
def test_logits_agree_with_closed_form(implementation, metric):
    def total(logits):
        return getattr(softmax_moments(logits, implementation=implementation).moments, metric).sum()

    logits = jnp.asarray(np.stack(list(ROWS.values())))
    want = np.stack([slope(row, metric) for row in cases.as_oracle(logits)])
    cases.assert_near(jax.jit(jax.grad(total))(logits), want, 2e-5, f"d {metric} / d logits", list(ROWS))


@pytest.mark.parametrize("implementation", cases.implementations(UNEMBED))
def test_hidden_states_agree_with_finite_differences(implementation, rng):
    soft_cap = 5.0
    hidden, unembedding = rng.normal(0, 1, (3, 2, 16)), rng.normal(0, 0.5, (50, 16))
    direction = rng.normal(0, 1, hidden.shape)
    targets = np.array([3, 7])

    def oracle_metrics(x):
        logits = oracle.unembed(x, unembedding, soft_cap)
        return oracle.entropy(logits).sum() + oracle.lens_kl(logits).sum() + oracle.logprob(logits[-1], targets).sum()

    def metrics(x):
        got = unembed_moments(
            x, jnp.float32(unembedding), soft_cap=soft_cap, targets=jnp.int32(targets), implementation=implementation
        )
        return got.moments.entropy.sum() + got.kl.sum() + got.target_logprob.sum()

    got = (np.asarray(jax.jit(jax.grad(metrics))(jnp.float32(hidden)), np.float64) * direction).sum()
    assert got == pytest.approx(along(oracle_metrics, hidden, direction), abs=2e-4)


# Rows: a text that begins (one key is visible), one in the middle of its cache, one that sees no key.
STARTS, LENGTHS = np.array([0, 4, -3]), np.array([1, 6, 0])
POSITIONS = STARTS[:, None] + np.arange(3)


def prefill(q, k, **options):
    out, moments = prefill_attention(q, k.swapaxes(2, 3), k, jnp.int32(STARTS), **options)
    return [*(getattr(moments, name) for name in METRICS), out]


def prefill_oracle(q, k, **options):
    want = oracle.attention(q, k, k, POSITIONS, **options)
    return [want[name] for name in (*DEFINITIONS, "output")]


def decode(q, k, **options):
    _, moments = decode_attention(q[:, 0], k.swapaxes(2, 3), k, jnp.int32(LENGTHS), **options)
    return [getattr(moments, name) for name in METRICS]


def decode_oracle(q, k, **options):
    want = oracle.attention(q[:, :1], k, k, LENGTHS[:, None] - 1, **options)
    return [want[name] for name in DEFINITIONS]


def dispersion(q, k, **options):
    return [head_dispersion(q, k.swapaxes(2, 3), jnp.int32(STARTS), **options)]


def dispersion_oracle(q, k, **options):
    return [oracle.head_jsd(oracle.attention(q, k, k, POSITIONS, **options)["weights"])]


CALLS = (
    (prefill, prefill_oracle, PREFILL),
    (decode, decode_oracle, DECODE),
    (dispersion, dispersion_oracle, DISPERSION),
)
RUNS = [(call, slow, *run) for call, slow, operation in CALLS for run in with_options(operation)]


@pytest.mark.parametrize(
    ("call", "slow", "implementation", "options"), RUNS, ids=lambda x: getattr(x, "__name__", str(x))
)
def test_attention_agrees_with_finite_differences(call, slow, implementation, options, rng):
    options = {"scale": 0.7, **options}
    shapes = (3, 3, 4, 8), (3, 2, 9, 8)
    point, directions = (tuple(rng.normal(0, 1, shape) for shape in shapes) for _ in range(2))

    def metrics(q, k):
        return jnp.stack([x.sum() for x in call(q, k, implementation=implementation, **options)])

    slopes = jax.jit(jax.jacrev(metrics, argnums=(0, 1)))(*map(jnp.float32, point))
    for i, direction in enumerate(directions):

        def moved(x, i=i):
            arrays = (x if j == i else y for j, y in enumerate(point))
            return np.array([metric.sum() for metric in slow(*arrays, **options)])

        got = (np.asarray(slopes[i], np.float64) * direction).sum(axis=tuple(range(1, 1 + direction.ndim)))
        cases.assert_near(got, along(moved, point[i], direction), 2e-4, f"along {'qk'[i]}", relative=1e-4)
