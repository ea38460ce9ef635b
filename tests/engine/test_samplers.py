"""Samplers against a NumPy reference, and their draws against the expected distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import ConfigError, Greedy, Sample
from tests import oracle

CUT = -1e30


def processed(row, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Process one row by the definition: temperature, top-k, top-p, then min-p; ties with the last kept token stay."""
    row = np.asarray(row, np.float64) / temperature
    if 0 < top_k < len(row):
        row = np.where(row >= np.sort(row)[-top_k], row, -np.inf)
    if top_p < 1:
        ranked = np.sort(row)[::-1]
        reached = np.cumsum(oracle.softmax(ranked))
        row = np.where(row >= ranked[np.flatnonzero(reached >= top_p)[0]], row, -np.inf)
    p = oracle.softmax(row)
    return np.where(p >= min_p * p.max(), row, -np.inf)


SETTINGS = [
    {},
    {"temperature": 0.3},
    {"temperature": 1e-3},
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 500},
    {"top_p": 1e-6},
    {"top_p": 0.35},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"temperature": 1.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_processed_logits_equal_the_reference(settings, rng):
    logits = rng.normal(0, 2, (6, 50)).astype(np.float32)
    logits[1] += 300
    logits[2, 7] = 60
    got = np.asarray(Sample(**settings).processed(jnp.asarray(logits)))
    want = np.stack([processed(row, **settings) for row in logits])
    np.testing.assert_array_equal(got > CUT, want > -np.inf)
    np.testing.assert_allclose(got[got > CUT], want[got > CUT], rtol=1e-6)


@pytest.mark.parametrize("settings", [{"top_k": 2}, {"top_p": 0.5}, {"min_p": 1.0}], ids=str)
def test_ties_with_the_last_kept_token_stay(settings):
    logits = jnp.array([[1.0, 2.0, 2.0, 2.0, 0.0]])
    kept = Sample(**settings).processed(logits)[0] > CUT
    np.testing.assert_array_equal(kept, [False, True, True, True, False])


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 6}, {"top_p": 0.8}, {"min_p": 0.2}], ids=str)
def test_draws_follow_the_distribution(settings):
    """Pearson's statistic of 40,000 draws must stay below its 1 − 1e-6 quantile (Wilson–Hilferty)."""
    draws = 40_000
    logits = np.linspace(2.5, -1, 9).astype(np.float32)[[3, 0, 8, 1, 5, 2, 7, 4, 6]]
    rows = jnp.broadcast_to(jnp.asarray(logits), (draws, 9))
    tokens = jax.jit(Sample(**settings))(rows, jax.random.split(jax.random.key(3), draws)).token
    counts = np.bincount(np.asarray(tokens), minlength=9)
    p = oracle.softmax(processed(logits, **settings))
    assert (counts[p == 0] == 0).all()
    expected = draws * p[p > 0]
    statistic = ((counts[p > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 4.753 * spread**0.5) ** 3


def test_greedy_takes_the_lowest_id_among_equals():
    logits = jnp.array([[0.0, 3.0, 3.0, 1.0], [5.0, 5.0, 5.0, 5.0], [-2.0, -1.0, -3.0, -1.0], [0.0, 0.0, 0.0, 9.0]])
    drawn = Greedy()(logits, jax.random.split(jax.random.key(0), 4)).token
    np.testing.assert_array_equal(drawn, [1, 0, 1, 3])
    assert drawn.dtype == jnp.int32


def test_top_k_of_one_is_greedy(rng):
    logits = jnp.asarray(rng.normal(0, 1, (32, 20)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 32)
    np.testing.assert_array_equal(Sample(temperature=3.0, top_k=1)(logits, keys).token, Greedy()(logits, keys).token)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": 1e-38},
        {"temperature": 9e-4},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1e-300},
        {"top_p": 9e-7},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"min_p": -0.1},
        {"min_p": 1.5},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"sampler 'sample': \w+ is .*; it must be") as error:
        Sample(**wrong)
    assert "\n" not in str(error.value)


def test_absent_tokens_are_drawn_at_no_temperature():
    """A vocabulary that a mesh pads has −1e30 in its last columns, which a division would bring near 0."""
    logits = jnp.where(jnp.arange(50) < 3, 1.0, jnp.where(jnp.arange(50) < 25, -1e30, -jnp.inf))
    rows, keys = jnp.broadcast_to(logits, (200, 50)), jax.random.split(jax.random.key(0), 200)
    for temperature in (1e-3, 1.0, 1e30, 3e38):
        assert set(np.asarray(Sample(temperature=temperature)(rows, keys).token).tolist()) == {0, 1, 2}
