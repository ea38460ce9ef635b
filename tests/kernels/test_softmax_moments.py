"""softmax_moments: every implementation against the oracle, on rows that are hard for a softmax."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import softmax_moments
from jaxtrace.kernels.softmax_moments.api import OPERATION

from tests import oracle

from . import cases

PROBLEMS = [(1, "float32"), (3, "float32"), (127, "float32"), (32_000, "bfloat16"), (131_072, "float32")]
ALPHAS = (0.0, 0.5, 1.0, 2.0, 5.0, 0.3, 1.7, 20.0, math.inf)


@functools.cache
def problem(size, dtype):
    """Return names, logits [rows, size], mask of the rows with an entry, and the oracle's metrics."""
    rows = cases.logit_rows(size)
    logits = jnp.asarray(np.stack(list(rows.values()))).astype(dtype)
    x = cases.as_oracle(logits)
    has_entry = (x > -np.inf).any(axis=-1)
    want = {
        "entropy": oracle.entropy(x),
        "varentropy": oracle.varentropy(x),
        "renyi": np.stack([oracle.renyi(x, alpha) for alpha in ALPHAS], axis=-1),
        "p_max": oracle.top1_prob(x),
        "gap": oracle.top1_top2_gap(x),
        "self_certainty": oracle.self_certainty(x),
        "fisher_rao": oracle.fisher_rao(x),
        "top1": oracle.top1(x)[has_entry],
        "logsumexp": oracle.logsumexp(x[has_entry]),
    }
    return list(rows), logits, has_entry, want


@functools.cache
def run(implementation, size, dtype):
    call = jax.jit(functools.partial(softmax_moments, alphas=ALPHAS, implementation=implementation))
    return call(problem(size, dtype)[1])


@pytest.mark.parametrize(("size", "dtype"), PROBLEMS)
@pytest.mark.parametrize("implementation", cases.implementations(OPERATION))
class TestAgainstOracle:
    @pytest.mark.parametrize(("name", "bound"), [("entropy", cases.ENTROPY), ("varentropy", cases.VARENTROPY)])
    def test_entropies(self, implementation, size, dtype, name, bound):
        names, _, _, want = problem(size, dtype)
        got = getattr(run(implementation, size, dtype).moments, name)
        cases.assert_near(got, want[name], bound, name, names)
        assert (np.asarray(got) >= 0).all()

    def test_renyi(self, implementation, size, dtype):
        names, _, _, want = problem(size, dtype)
        got = np.array(run(implementation, size, dtype).moments.renyi)
        far_below = names.index("masked -1e9"), ALPHAS.index(0)  # has its own test
        got[far_below] = want["renyi"][far_below]
        for i, alpha in enumerate(ALPHAS):
            cases.assert_near(got[:, i], want["renyi"][:, i], cases.RENYI, f"renyi[{alpha}]", names)

    def test_distances_to_uniform(self, implementation, size, dtype):
        names, _, _, want = problem(size, dtype)
        got = run(implementation, size, dtype)
        bound = cases.SELF_CERTAINTY
        cases.assert_near(got.self_certainty, want["self_certainty"], bound, "self_certainty", names, relative=bound)
        cases.assert_near_angle(got.fisher_rao, want["fisher_rao"], names)
        uniform = [names.index(name) for name in names if name.startswith(("uniform", "one hot", "empty"))]
        assert not np.asarray(got.self_certainty)[uniform].any() and not np.asarray(got.fisher_rao)[uniform].any()

    def test_top_of_the_row(self, implementation, size, dtype):
        names, _, has_entry, want = problem(size, dtype)
        got = run(implementation, size, dtype)
        non_empty = [name for name, yes in zip(names, has_entry, strict=True) if yes]
        cases.assert_near(got.moments.p_max, want["p_max"], cases.PROBABILITY, "p_max", names)
        cases.assert_near(got.top1_top2_gap, want["gap"], cases.PROBABILITY, "top1_top2_gap", names)
        cases.assert_near(got.top1[has_entry], want["top1"], 0, "top1", non_empty)
        cases.assert_near(
            got.moments.logsumexp[has_entry], want["logsumexp"], cases.LOG_PROBABILITY, "logsumexp", non_empty, 1e-7
        )


@pytest.mark.parametrize("implementation", cases.implementations(OPERATION))
class TestEdges:
    def test_scores_of_sd_6_stay_exact(self, implementation, rng):
        scores = rng.normal(0, 6, (64, 4096)).astype(np.float32)
        moments = cases.compiled(softmax_moments, implementation=implementation)(jnp.asarray(scores)).moments
        cases.assert_near(moments.entropy, oracle.entropy(scores), cases.ENTROPY, "entropy")
        cases.assert_near(moments.varentropy, oracle.varentropy(scores), cases.VARENTROPY, "varentropy")

    def test_single_row_stays_exact(self, implementation):
        """XLA adds up a single row in another order than several."""
        size = 131_072 if implementation == "xla" else 5003
        call = cases.compiled(softmax_moments, implementation=implementation)
        rows = cases.logit_rows(size)
        got = [call(jnp.asarray(row)[None]).moments for row in rows.values()]
        x = cases.as_oracle(np.stack(list(rows.values())))
        entropy = np.concatenate([one.entropy for one in got])
        cases.assert_near(entropy, oracle.entropy(x), cases.ENTROPY, "entropy", list(rows))
        varentropy = np.concatenate([one.varentropy for one in got])
        cases.assert_near(varentropy, oracle.varentropy(x), cases.VARENTROPY, "varentropy", list(rows))

    def test_renyi_0_counts_entries_far_below_the_top(self, implementation):
        logits = jnp.asarray([[0.0, -1e9, -2e4, -jnp.inf]])
        got = softmax_moments(logits, alphas=(0.0,), implementation=implementation).moments
        assert float(got.renyi[0, 0]) == pytest.approx(math.log(3), abs=1e-6)

    def test_leading_axes_are_kept(self, implementation, rng):
        logits = rng.normal(0, 2, (2, 3, 4, 50)).astype(np.float32)
        call = jax.jit(functools.partial(softmax_moments, alphas=(0.5,), implementation=implementation))
        got = call(jnp.asarray(logits))
        assert got.moments.renyi.shape == (2, 3, 4, 1)
        cases.assert_near(got.moments.entropy, oracle.entropy(logits), cases.ENTROPY, "entropy")
        one = call(jnp.asarray(logits[0, 0, 0]))
        assert one.top1.shape == ()
        assert one.moments.renyi.shape == (1,)

    def test_results_are_float32(self, implementation):
        got = softmax_moments(jnp.ones((2, 4), jnp.bfloat16), alphas=(2.0,), implementation=implementation)
        assert {x.dtype for x in jax.tree.leaves(got.moments)} == {jnp.dtype("float32")}
        assert got.top1.dtype == jnp.int32

    def test_equal_tops_give_the_lowest_index_and_no_gap(self, implementation):
        got = softmax_moments(jnp.asarray([[1.0, 4.0, 4.0, 0.0]]), implementation=implementation)
        assert int(got.top1[0]) == 1
        assert float(got.top1_top2_gap[0]) == 0


@pytest.mark.parametrize("implementation", cases.implementations(OPERATION))
class TestTemperature:
    def test_each_row_has_its_own(self, implementation, rng):
        size, temperature = 300, np.float32([0.5, 1.0, 3.0])
        logits = rng.normal(0, 3, (3, size)).astype(np.float32)
        logits[:2, 5:50], logits[2, 5:50] = -np.inf, -1e30
        call = functools.partial(softmax_moments, alphas=(0.0, 2.0), implementation=implementation)
        got = jax.jit(lambda x, t: call(x, temperature=t))(jnp.asarray(logits), jnp.asarray(temperature))
        want = cases.as_oracle(logits) / temperature[:, None]
        cases.assert_near(got.moments.entropy, oracle.entropy(want), cases.ENTROPY, "entropy")
        cases.assert_near(got.moments.varentropy, oracle.varentropy(want), cases.VARENTROPY, "varentropy")
        cases.assert_near(got.moments.renyi[:, 0], np.full(3, np.log(size - 45)), cases.RENYI, "count")
        cases.assert_near(got.moments.renyi[:, 1], oracle.renyi(want, 2.0), cases.RENYI, "renyi")
        cases.assert_near(got.top1_top2_gap, oracle.top1_top2_gap(want), cases.PROBABILITY, "top1_top2_gap")
        np.testing.assert_array_equal(got.top1, want.argmax(axis=-1))

    def test_one_number_is_for_all_rows(self, implementation, rng):
        logits = jnp.asarray(rng.normal(0, 3, (2, 2, 300)), jnp.float32)
        one = softmax_moments(logits, temperature=0.7, implementation=implementation)
        each = softmax_moments(logits, temperature=jnp.full((2, 2), 0.7), implementation=implementation)
        jax.tree.map(np.testing.assert_array_equal, one, each)
