"""Properties of the moment algebra that hold for every row."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtrace.kernels import Moments
from jaxtrace.kernels.moments import with_uniform_orders

from tests import oracle

from . import cases

SIZE = 32
PARTS = 4
ALPHAS = (0.0, 0.5, 1.0, 2.0, 5.0, math.inf)

of = jax.jit(lambda scores, where: Moments.of(scores, where=where, alphas=ALPHAS))
merge = jax.jit(lambda x, y: x.merge(y))
NAMES = ("entropy", "varentropy", "renyi", "p_max", "self_certainty", "fisher_rao")
metrics = jax.jit(lambda x: {name: getattr(x, name) for name in NAMES})
merge_axis = jax.jit(lambda scores, masks: Moments.of(scores[None], where=masks, alphas=ALPHAS).merge_axis(0))

rows = st.lists(st.floats(-60, 60, width=32), min_size=SIZE, max_size=SIZE).map(np.float32)
tied_rows = st.lists(st.sampled_from([-80.0, 0.0, 1.0, 45.0]), min_size=SIZE, max_size=SIZE).map(np.float32)
any_row = st.one_of(rows, tied_rows)
masks = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).map(np.array)
parts = st.lists(st.integers(0, PARTS - 1), min_size=SIZE, max_size=SIZE).map(np.array)
offsets = st.sampled_from([0.0, 300.0, -300.0])


def assert_same(x, y):
    cases.assert_near(x.m, y.m, 0, "m")
    for name in ("l", "a", "b", "r", "c"):
        cases.assert_near(getattr(x, name), getattr(y, name), 1e-5, name, relative=1e-5)
    x, y = metrics(x), metrics(y)
    cases.assert_near(x["entropy"], y["entropy"], cases.ENTROPY, "entropy")
    cases.assert_near(x["varentropy"], y["varentropy"], cases.VARENTROPY, "varentropy")
    cases.assert_near(x["renyi"], y["renyi"], cases.RENYI, "renyi")
    assert_near_distances(x, y["self_certainty"], y["fisher_rao"])


def assert_near_distances(x, self_certainty, fisher_rao):
    bound = cases.SELF_CERTAINTY
    cases.assert_near(x["self_certainty"], self_certainty, bound, "self_certainty", relative=bound)
    cases.assert_near_angle(x["fisher_rao"], fisher_rao)


@given(any_row, parts)
def test_merge_is_commutative_and_associative(row, part):
    x, y, z = (of(row, part == i) for i in range(3))
    assert_same(merge(x, y), merge(y, x))
    assert_same(merge(merge(x, y), z), merge(x, merge(y, z)))


@given(any_row, masks)
def test_empty_is_neutral(row, mask):
    x = of(row, mask)
    empty = Moments.empty((), ALPHAS)
    assert_same(merge(x, empty), x)
    assert_same(merge(empty, x), x)
    assert_same(merge(empty, empty), empty)


@given(any_row, masks, parts, st.permutations(range(PARTS)))
def test_any_split_merges_to_the_whole_row(row, mask, part, order):
    whole = of(row, mask)
    tiles = [of(row, mask & (part == i)) for i in order]
    merged = tiles[0]
    for tile in tiles[1:]:
        merged = merge(merged, tile)
    assert_same(merged, whole)
    assert_same(merge_axis(row, np.stack([mask & (part == i) for i in range(PARTS)])), whole)


@given(any_row, masks, offsets)
def test_metrics_keep_their_bounds_and_agree_with_oracle(row, mask, offset):
    row = row + np.float32(offset)
    x = metrics(of(row, mask))
    absent = np.where(mask, row, -np.inf)
    cases.assert_near(x["entropy"], oracle.entropy(absent), cases.ENTROPY, "entropy")
    cases.assert_near(x["varentropy"], oracle.varentropy(absent), cases.VARENTROPY, "varentropy")
    cases.assert_near(x["p_max"], oracle.top1_prob(absent), cases.PROBABILITY, "p_max")
    want = [oracle.renyi(absent, alpha) for alpha in ALPHAS]
    cases.assert_near(x["renyi"], want, cases.RENYI, f"renyi of {ALPHAS}")
    assert_near_distances(x, oracle.self_certainty(absent), oracle.fisher_rao(absent))
    assert 0 <= float(x["entropy"]) <= math.log(max(mask.sum(), 1)) + 1e-6
    assert float(x["varentropy"]) >= 0


@given(st.lists(st.integers(-(2**10), 2**10), min_size=SIZE, max_size=SIZE), masks, offsets)
def test_shift_does_not_change_the_sums(units, mask, offset):
    row = np.float32(units) / 16  # exact at every offset
    x, y = of(row, mask), of(row + np.float32(offset), mask)
    if mask.any():
        assert float(y.m) == float(x.m) + offset
    for name in ("l", "a", "b", "r", "c"):
        np.testing.assert_array_equal(getattr(x, name), getattr(y, name))


@given(any_row, masks, st.permutations(range(SIZE)))
def test_permutation_does_not_change_the_moments(row, mask, order):
    order = np.array(order)
    assert_same(of(row[order], mask[order]), of(row, mask))


@given(st.floats(-300, 300, width=32), masks)
def test_equal_scores_have_entropy_ln_n(value, mask):
    x = metrics(of(np.full(SIZE, value, np.float32), mask))
    n = max(int(mask.sum()), 1)
    cases.assert_near(x["entropy"], math.log(n), 1e-6, "entropy")
    cases.assert_near(x["renyi"], [math.log(n)] * len(ALPHAS), 1e-6, "renyi")
    assert float(x["varentropy"]) == float(x["self_certainty"]) == float(x["fisher_rao"]) == 0


def test_parts_whose_tops_are_far_apart_keep_the_sum_of_scores():
    """Beyond `FLOOR` every e^u is 0, while Σ u counts each score in full."""
    row = np.float32([0.0, -3.0, -1e6, -1e6 - 64, -np.inf, -2e7, -np.inf, -np.inf])
    tiles = [of(row, np.arange(8) // 2 == i) for i in (2, 0, 3, 1)]
    merged = tiles[0]
    for tile in tiles[1:]:
        merged = merge(merged, tile)
    masks = np.stack([np.arange(8) // 2 == i for i in range(4)])
    for whole in (of(row, None), merged, merge_axis(row, masks)):
        assert float(whole.c) == pytest.approx(-3.0 - 1e6 - (1e6 + 64) - 2e7, rel=1e-6)
        assert float(metrics(whole)["self_certainty"]) == pytest.approx(oracle.self_certainty(row), rel=1e-6)


def test_the_sum_of_scores_needs_the_order_0():
    lacking = Moments.of(jnp.zeros(3), alphas=(0.5, 2.0))
    assert lacking.c is None
    for name in ("self_certainty", "fisher_rao"):
        with pytest.raises(ValueError, match=r"alphas are \(0\.5, 2\.0\); this quantity needs the order 0 too"):
            getattr(lacking, name)
    assert with_uniform_orders((2.0, 0.5)) == (2.0, 0.5, 0.0) and with_uniform_orders(ALPHAS) == ALPHAS


@given(any_row, masks)
def test_renyi_falls_with_alpha(row, mask):
    renyi = np.asarray(metrics(of(row, mask))["renyi"])
    assert (np.diff(renyi) <= 2e-6).all(), renyi


def test_worked_value_of_the_definition():
    p = np.array([0.75] + [0.001] * 250)
    x = Moments.of(jnp.log(jnp.asarray(p, jnp.float32)))
    bits = math.log(2)
    assert float(x.entropy) / bits == pytest.approx(2.8027, abs=5e-5)
    assert float(x.varentropy) / bits**2 == pytest.approx(17.103, abs=5e-4)
    assert oracle.entropy_of(p) / bits == pytest.approx(2.8027, abs=5e-5)
    assert oracle.varentropy_of(p) / bits**2 == pytest.approx(17.103, abs=5e-4)


def test_largest_varentropy_of_a_large_vocabulary_is_reached():
    others = 128_255
    peaks = np.linspace(0.05, 0.95, 91)
    varentropies = peaks * (1 - peaks) * np.log(peaks * others / (1 - peaks)) ** 2
    peak = peaks[np.argmax(varentropies)]
    assert varentropies.max() == pytest.approx(35.58, abs=0.01)
    assert oracle.varentropy_of([peak] + [(1 - peak) / others] * others) == pytest.approx(varentropies.max(), abs=1e-6)
    row = jnp.zeros(others + 1).at[7].set(math.log(peak * others / (1 - peak)))
    got = jax.jit(lambda row: Moments.of(row[None]).varentropy)(row)
    assert float(got[0]) == pytest.approx(varentropies.max(), abs=0.01)


def test_moments_of_an_empty_row_are_zero():
    x = of(jnp.full((2, 5), -jnp.inf), None)
    for value in (*metrics(x).values(), x.l):
        np.testing.assert_array_equal(value, np.zeros_like(value))


def test_moments_scan_and_vmap_as_a_pytree(rng):
    @jax.jit
    def merged(scores):
        each = jax.vmap(lambda s: Moments.of(s, alphas=ALPHAS))(scores)
        scanned, _ = jax.lax.scan(lambda x, y: (x.merge(y), None), Moments.empty((3,), ALPHAS), each)
        return scanned, each.merge_axis(0), Moments.of(jnp.moveaxis(scores, 0, 1).reshape(3, 40), alphas=ALPHAS)

    scanned, joined, want = merged(jnp.asarray(rng.normal(0, 2, (4, 3, 10)), jnp.float32))
    assert_same(scanned, want)
    assert_same(joined, want)
