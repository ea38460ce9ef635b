"""Gradients of the metrics: closed forms for logits, finite differences of the oracle for queries and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import softmax_moments, unembed_moments
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from jaxtrace.kernels.unembed_moments.api import OPERATION as UNEMBED

from tests import oracle

from . import cases
from .test_attention import BOUNDS

DEFINITIONS = {name: definition for name, (definition, _) in BOUNDS.items()}
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
    """Return d metric / d s in closed form.

    With g = ln p + H they are −p g for the entropy and p (g² + 2 g − V) for the varentropy; p − 1/n for KL(U ‖ p), and
    −(2/π) x (q − p) / (2 √(1 − x²)) for the angle of cosine x = Σ √p / √n, where q = √p / Σ √p.
    """
    p = oracle.softmax(logits)
    n = np.maximum((logits > -np.inf).sum(), 1)
    if metric == "self_certainty":
        return np.where(logits > -np.inf, p - 1 / n, 0.0)
    if metric == "fisher_rao":
        root = np.sqrt(p)
        x = root.sum() / np.sqrt(n)
        q = root / np.maximum(root.sum(), 1e-30)
        return np.zeros_like(p) if x > 1 - 1e-9 or x == 0 else -(x / np.pi) * (q - p) / np.sqrt(1 - x**2)
    g = np.where(p > 0, oracle.log_softmax(logits), 0) + oracle.entropy_of(p)
    return -p * g if metric == "entropy" else p * (g**2 + 2 * g - oracle.varentropy_of(p))


@pytest.mark.parametrize("metric", ["entropy", "varentropy", "self_certainty", "fisher_rao"])
@pytest.mark.parametrize("implementation", cases.implementations(SOFTMAX))
def test_logits_agree_with_closed_form(implementation, metric):
    def total(logits):
        got = softmax_moments(logits, implementation=implementation)
        return getattr(got if hasattr(got, metric) else got.moments, metric).sum()

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
        distances = oracle.self_certainty(logits[-1]) + oracle.fisher_rao(logits[-1])
        of_output = oracle.logprob(logits[-1], targets) + distances
        return oracle.entropy(logits).sum() + oracle.lens_kl(logits).sum() + of_output.sum()

    def metrics(x):
        got = unembed_moments(
            x, jnp.float32(unembedding), soft_cap=soft_cap, targets=jnp.int32(targets), implementation=implementation
        )
        of_output = got.target_logprob + got.self_certainty + got.fisher_rao
        return got.moments.entropy.sum() + got.kl.sum() + of_output.sum()

    got = (np.asarray(jax.jit(jax.grad(metrics))(jnp.float32(hidden)), np.float64) * direction).sum()
    assert got == pytest.approx(along(oracle_metrics, hidden, direction), abs=2e-4)


SUNK = {"window": None, "learned_sink": jnp.array([0.5, -1.0, 2.0, 1e4])}
RUNS = [(call, *run) for call, operation in cases.ATTENTION for run in with_options(operation)]
RUNS += [(call, "xla", SUNK) for call in (cases.decode, cases.prefill)]


@pytest.mark.parametrize(("call", "implementation", "options"), RUNS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_attention_agrees_with_finite_differences(call, implementation, options, rng):
    """Rows: a text that begins (one key is visible), one in the middle of its cache, one that sees no key."""
    options = {"scale": 0.7, **options}
    if call is not cases.dispersion:
        options["prompt_length"] = jnp.array([1, 4, 2])
    queries, start = (1, np.array([0, 5, -1])) if call is cases.decode else (3, np.array([0, 4, -3]))
    shapes = (3, queries, 4, 8), (3, 2, 9, 8)
    point, directions = (tuple(rng.normal(0, 1, shape) for shape in shapes) for _ in range(2))

    def metrics(q, k):
        got = call(q, k.swapaxes(2, 3), k, jnp.int32(start), implementation=implementation, **options)
        return {name: x.sum() for name, x in got.items()}

    def oracle_metrics(q, k):
        want = oracle.attention(q, k, k, start[:, None] + np.arange(queries), **options)
        if call is cases.dispersion:
            return {"head_jsd": oracle.head_jsd(want["weights"]).sum()}
        return {name: want[DEFINITIONS.get(name, name)].sum() for name in slopes}

    slopes = jax.jit(jax.jacrev(metrics, argnums=(0, 1)))(*map(jnp.float32, point))
    for i, direction in enumerate(directions):
        moved = lambda x, i=i: oracle_metrics(*(x if j == i else y for j, y in enumerate(point)))  # noqa: E731
        ahead, behind = (moved(point[i] + sign * STEP * direction) for sign in (1, -1))
        for name, slope_of in slopes.items():
            got = (np.asarray(slope_of[i], np.float64) * direction).sum()
            want = (ahead[name] - behind[name]) / (2 * STEP)
            cases.assert_near(got, want, 2e-4, f"{name} along {'qk'[i]}", relative=1e-4)
