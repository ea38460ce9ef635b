"""Gradients of the metrics: closed forms for logits, differences of the oracle for queries and keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import (
    decode_attention,
    head_dispersion,
    prefill_attention,
    softmax_moments,
    unembed_moments,
)
from jaxtrace.kernels.decode_attention.api import OPERATION as DECODE
from jaxtrace.kernels.head_dispersion.api import OPERATION as DISPERSION
from jaxtrace.kernels.prefill_attention.api import OPERATION as PREFILL
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from jaxtrace.kernels.unembed_moments.api import OPERATION as UNEMBED

from tests import oracle

from . import cases

METRICS = ("entropy", "varentropy", "entropy_normalized", "entropy_no_sink", "sink_mass")
DEFINITIONS = ["attention_entropy", "attention_varentropy", "attention_entropy_normalized"]
DEFINITIONS += ["attention_entropy_no_sink", "sink_mass"]
STEP = 1e-5
ROWS = cases.logit_rows(200)


def along(function, x, direction):
    """Central difference of a float64 function at x."""
    return (function(x + STEP * direction) - function(x - STEP * direction)) / (2 * STEP)


def slope(logits, metric):
    """d entropy / d s = −p (ln p + H) and d varentropy / d s = p (g² + 2 g − V) with g = ln p + H."""
    p = oracle.softmax(logits)
    g = np.where(p > 0, oracle.log_softmax(logits), 0) + oracle.entropy_of(p)
    return -p * g if metric == "entropy" else p * (g**2 + 2 * g - oracle.varentropy_of(p))


@pytest.mark.parametrize("metric", ["entropy", "varentropy"])
@pytest.mark.parametrize("implementation", cases.implementations(SOFTMAX))
class TestLogits:
    @pytest.mark.parametrize("name", ROWS)
    def test_closed_form(self, implementation, metric, name):
        call = gradient_of_rows(implementation, metric)
        want = slope(cases.as_oracle(ROWS[name]), metric)
        cases.assert_near(call(jnp.asarray(ROWS[name])), want, 2e-5, f"d {metric} / d logits")


@functools.cache
def gradient_of_rows(implementation, metric):
    return jax.jit(jax.grad(lambda x: getattr(softmax_moments(x, implementation=implementation).moments, metric)))


@pytest.mark.parametrize("implementation", cases.implementations(UNEMBED))
@pytest.mark.parametrize("soft_cap", [None, 5.0])
def test_hidden(implementation, soft_cap, rng):
    hidden, unembedding = rng.normal(0, 1, (3, 2, 16)), rng.normal(0, 0.5, (50, 16))
    direction = rng.normal(0, 1, hidden.shape)
    targets = np.array([3, 7])

    def oracle_of(x):
        logits = oracle.unembed(x, unembedding, soft_cap)
        return oracle.entropy(logits).sum() + oracle.lens_kl(logits).sum() + oracle.logprob(logits[-1], targets).sum()

    def of(x):
        got = unembed_moments(
            x,
            jnp.float32(unembedding),
            soft_cap=soft_cap,
            targets=jnp.int32(targets),
            implementation=implementation,
        )
        return got.moments.entropy.sum() + got.kl.sum() + got.target_logprob.sum()

    got = (np.asarray(jax.jit(jax.grad(of))(jnp.float32(hidden)), np.float64) * direction).sum()
    assert got == pytest.approx(along(oracle_of, hidden, direction), abs=2e-4)


@pytest.mark.parametrize(("window", "soft_cap"), [(None, None), (3, 4.0)])
class TestAttention:
    """Rows: a text that begins (one key seen), one in the middle of its cache, one that sees nothing."""

    starts = np.array([0, 4, -3])
    scale = 0.7

    @pytest.fixture
    def arrays(self, rng):
        """(q, k), and a direction in each."""
        shapes = (3, 3, 4, 8), (3, 2, 9, 8)
        return tuple(rng.normal(0, 1, s) for s in shapes), tuple(rng.normal(0, 1, s) for s in shapes)

    def compare(self, of, oracle_of, arrays):
        point, directions = arrays
        slopes = jax.jit(jax.jacrev(of, argnums=(0, 1)))(*map(jnp.float32, point))
        for i, direction in enumerate(directions):
            moved = lambda x, i=i: oracle_of(*(x if j == i else y for j, y in enumerate(point)))  # noqa: E731
            axes = tuple(range(1, 1 + direction.ndim))
            got = (np.asarray(slopes[i], np.float64) * direction).sum(axis=axes)
            cases.assert_near(got, along(moved, point[i], direction), 2e-4, f"along {'qk'[i]}", relative=1e-4)

    @pytest.mark.parametrize("implementation", cases.implementations(PREFILL))
    def test_prefill(self, implementation, window, soft_cap, arrays):
        options = {"scale": self.scale, "window": window, "soft_cap": soft_cap}

        def of(q, k):
            starts = jnp.int32(self.starts)
            call = prefill_attention(q, k.swapaxes(2, 3), k, starts, implementation=implementation, **options)
            return jnp.stack([getattr(call[1], name).sum() for name in METRICS] + [call[0].sum()])

        def oracle_of(q, k):
            positions = self.starts[:, None] + np.arange(3)
            want = oracle.attention(q, k, k, positions, **options)
            by_metric = [want[name].sum() for name in DEFINITIONS]
            return np.array([*by_metric, want["output"].sum()])

        self.compare(of, oracle_of, arrays)

    @pytest.mark.parametrize("implementation", cases.implementations(DECODE))
    def test_decode(self, implementation, window, soft_cap, arrays):
        options = {"scale": self.scale, "window": window, "soft_cap": soft_cap}
        lengths = np.array([1, 6, 0])

        def of(q, k):
            keys, rows = k.swapaxes(2, 3), jnp.int32(lengths)
            _, got = decode_attention(q[:, 0], keys, k, rows, implementation=implementation, **options)
            return jnp.stack([getattr(got, name).sum() for name in METRICS])

        def oracle_of(q, k):
            want = oracle.attention(q[:, :1], k, k, lengths[:, None] - 1, **options)
            return np.array([want[name].sum() for name in DEFINITIONS])

        self.compare(of, oracle_of, arrays)

    @pytest.mark.parametrize("implementation", cases.implementations(DISPERSION))
    def test_head_dispersion(self, implementation, window, soft_cap, arrays):
        options = {"scale": self.scale, "window": window, "soft_cap": soft_cap}

        def of(q, k):
            keys, starts = k.swapaxes(2, 3), jnp.int32(self.starts)
            got = head_dispersion(q, keys, starts, implementation=implementation, **options)
            return got.sum()[None]

        def oracle_of(q, k):
            positions = self.starts[:, None] + np.arange(3)
            return oracle.head_jsd(oracle.attention(q, k, k, positions, **options)["weights"]).sum()[None]

        self.compare(of, oracle_of, arrays)
