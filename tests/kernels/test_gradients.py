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


class TestAttention:
    """Rows: a text that begins (one key is visible), one in the middle of its cache, one that sees no key."""

    starts = np.array([0, 4, -3])
    scale = 0.7

    @pytest.fixture
    def arrays(self, rng):
        """Return (q, k), and a direction in each."""
        shapes = (3, 3, 4, 8), (3, 2, 9, 8)
        return tuple(rng.normal(0, 1, s) for s in shapes), tuple(rng.normal(0, 1, s) for s in shapes)

    def compare(self, metrics, oracle_metrics, arrays):
        point, directions = arrays
        slopes = jax.jit(jax.jacrev(metrics, argnums=(0, 1)))(*map(jnp.float32, point))
        for i, direction in enumerate(directions):
            moved = lambda x, i=i: oracle_metrics(*(x if j == i else y for j, y in enumerate(point)))  # noqa: E731
            axes = tuple(range(1, 1 + direction.ndim))
            got = (np.asarray(slopes[i], np.float64) * direction).sum(axis=axes)
            cases.assert_near(got, along(moved, point[i], direction), 2e-4, f"along {'qk'[i]}", relative=1e-4)

    @pytest.mark.parametrize(("implementation", "options"), with_options(PREFILL), ids=str)
    def test_prefill_agrees_with_finite_differences(self, implementation, options, arrays):
        options = {"scale": self.scale, **options}

        def metrics(q, k):
            starts = jnp.int32(self.starts)
            call = prefill_attention(q, k.swapaxes(2, 3), k, starts, implementation=implementation, **options)
            return jnp.stack([getattr(call[1], name).sum() for name in METRICS] + [call[0].sum()])

        def oracle_metrics(q, k):
            positions = self.starts[:, None] + np.arange(3)
            want = oracle.attention(q, k, k, positions, **options)
            by_metric = [want[name].sum() for name in DEFINITIONS]
            return np.array([*by_metric, want["output"].sum()])

        self.compare(metrics, oracle_metrics, arrays)

    @pytest.mark.parametrize(("implementation", "options"), with_options(DECODE), ids=str)
    def test_decode_agrees_with_finite_differences(self, implementation, options, arrays):
        options = {"scale": self.scale, **options}
        lengths = np.array([1, 6, 0])

        def metrics(q, k):
            keys, rows = k.swapaxes(2, 3), jnp.int32(lengths)
            _, got = decode_attention(q[:, 0], keys, k, rows, implementation=implementation, **options)
            return jnp.stack([getattr(got, name).sum() for name in METRICS])

        def oracle_metrics(q, k):
            want = oracle.attention(q[:, :1], k, k, lengths[:, None] - 1, **options)
            return np.array([want[name].sum() for name in DEFINITIONS])

        self.compare(metrics, oracle_metrics, arrays)

    @pytest.mark.parametrize(("implementation", "options"), with_options(DISPERSION), ids=str)
    def test_head_dispersion_agrees_with_finite_differences(self, implementation, options, arrays):
        options = {"scale": self.scale, **options}

        def metrics(q, k):
            keys, starts = k.swapaxes(2, 3), jnp.int32(self.starts)
            got = head_dispersion(q, keys, starts, implementation=implementation, **options)
            return got.sum()[None]

        def oracle_metrics(q, k):
            positions = self.starts[:, None] + np.arange(3)
            return oracle.head_jsd(oracle.attention(q, k, k, positions, **options)["weights"]).sum()[None]

        self.compare(metrics, oracle_metrics, arrays)
