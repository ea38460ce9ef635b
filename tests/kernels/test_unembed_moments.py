"""unembed_moments: every implementation against the oracle's product, lens by lens."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import unembed_moments
from jaxtrace.kernels.moments import with_uniform_orders
from jaxtrace.kernels.unembed_moments import tpu_blocks, xla
from jaxtrace.kernels.unembed_moments.api import OPERATION

from tests import oracle

from . import cases

ALPHAS = (0.5, 2.0, 5.0, math.inf)
# groups, rows, embed, vocabulary, soft_cap
SHAPES = [(1, 1, 16, 1, None), (3, 5, 64, 127, 30.0), (1, 2, 32, 131_072, None), (5, 1, 64, 5003, 5.0)]

RUNS = [(shape, "float32") for shape in SHAPES] + [(SHAPES[1], "bfloat16")]


def problem(rng, groups, rows, embed, vocabulary, dtype, offset=0.0, peak=0.0):
    """Return (hidden, unembedding, targets) on a grid where every product is exact in float32; logits have sd 2."""
    hidden = cases.on_grid(rng, (groups, rows, embed), 1.0, 1 / 8)
    unembedding = cases.on_grid(rng, (vocabulary, embed), 2 / math.sqrt(embed), 1 / 64)
    hidden[..., :2] = 16, 8
    unembedding[:, :2] = 0, 0
    unembedding[:, 0] = offset / 16
    unembedding[rng.integers(vocabulary), 1] = peak / 8
    targets = rng.integers(0, vocabulary, rows)
    return jnp.asarray(hidden, dtype), jnp.asarray(unembedding, dtype), jnp.asarray(targets, jnp.int32)


def check(got, hidden, unembedding, targets, soft_cap):
    logits = oracle.unembed(cases.as_oracle(hidden), cases.as_oracle(unembedding), soft_cap)
    renyi = np.stack([oracle.renyi(logits, alpha) for alpha in ALPHAS], axis=-1)
    want = oracle.lens(logits)
    cases.assert_near(got.moments.entropy, want["lens_entropy"], cases.ENTROPY, "entropy")
    cases.assert_near(got.moments.varentropy, want["lens_varentropy"], cases.VARENTROPY, "varentropy")
    cases.assert_near(got.renyi, renyi[-1], cases.RENYI, "renyi")
    cases.assert_near(got.moments.p_max, want["lens_top1_prob"], cases.PROBABILITY, "top1_prob")
    cases.assert_near(got.kl, want["lens_kl"], cases.ENTROPY, "kl")
    assert not np.asarray(got.kl[-1]).any(), "KL(final ‖ final) is 0"
    cases.assert_near(got.top1_top2_gap, oracle.top1_top2_gap(logits[-1]), cases.PROBABILITY, "top1_top2_gap")
    check_distances_to_uniform(got, logits[-1])
    best = np.take_along_axis(logits, np.asarray(got.top1)[..., None], axis=-1)[..., 0]
    cases.assert_near(best, logits.max(axis=-1), 1e-5, "score of top1")
    cases.assert_near(got.target_logprob, oracle.logprob(logits[-1], targets), cases.LOG_PROBABILITY, "target_logprob")
    cases.assert_near(got.logits, logits[-1], 1e-5, "logits", relative=1e-6)


def check_distances_to_uniform(got, logits):
    bound = cases.SELF_CERTAINTY
    cases.assert_near(got.self_certainty, oracle.self_certainty(logits), bound, "self_certainty", relative=bound)
    cases.assert_near_angle(got.fisher_rao, oracle.fisher_rao(logits))


@functools.cache
def call(implementation, soft_cap=None):
    options = dict(alphas=ALPHAS, soft_cap=soft_cap, keep_logits=True, implementation=implementation)
    return jax.jit(lambda h, w, t: unembed_moments(h, w, targets=t, **options))


@pytest.mark.parametrize("implementation", cases.implementations(OPERATION))
class TestUnembedMoments:
    @pytest.mark.parametrize(("shape", "dtype"), RUNS, ids=str)
    def test_agrees_with_oracle(self, implementation, shape, dtype, rng):
        *sizes, soft_cap = shape
        if implementation.endswith("_interpret") and sizes[3] > 10_000:
            pytest.skip("interpreters take half a minute, and a vocabulary of 5,003 takes the same branches")
        hidden, unembedding, targets = problem(rng, *sizes, dtype)
        got = call(implementation, soft_cap)(hidden, unembedding, targets)
        check(got, hidden, unembedding, targets, soft_cap)

    @pytest.mark.parametrize(("offset", "peak"), [(300, 0), (-300, 0), (0, 45), (300, 45)])
    def test_offset_and_peaked_logits_stay_exact(self, implementation, offset, peak, rng):
        hidden, unembedding, targets = problem(rng, 3, 3, 64, 1000, "float32", offset, peak)
        check(call(implementation)(hidden, unembedding, targets), hidden, unembedding, targets, None)

    def test_rounded_products_stay_within_bounds(self, implementation, rng):
        hidden = jnp.asarray(rng.normal(0, 1, (3, 4, 256)), jnp.float32)
        unembedding = jnp.asarray(rng.normal(0, 2 / 16, (5000, 256)), jnp.float32)
        targets = jnp.asarray(rng.integers(0, 5000, 4), jnp.int32)
        check(call(implementation)(hidden, unembedding, targets), hidden, unembedding, targets, None)

    def test_results_that_are_not_requested_are_none(self, implementation, rng):
        hidden, unembedding, _ = problem(rng, 2, 3, 16, 50, "float32")
        got = jax.jit(lambda h, w: unembed_moments(h, w, implementation=implementation))(hidden, unembedding)
        assert got.target_logprob is None
        assert got.logits is None
        assert got.renyi.shape == (3, 0)
        assert got.top1.dtype == jnp.int32

    @pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # the interpreter of GPU kernels is NumPy
    def test_distances_of_plain_rows_are_exact(self, implementation):
        """The rows are uniform, one-hot by far, uniform over half of the tokens, and without any token."""
        rows = np.zeros((4, 64), np.float32)
        rows[1, 1:], rows[2, ::2], rows[3] = -512, -2e38, -2e38
        unembedding = jnp.pad(jnp.asarray(rows.T), ((0, 0), (0, 4)))
        got = call(implementation)(2 * jnp.eye(4, 8)[None], unembedding, jnp.zeros(4, jnp.int32))
        certain = 1024 * 63 / 64 - math.log(64), 2 / math.pi * math.acos(1 / 8)
        np.testing.assert_allclose(got.self_certainty, [0, certain[0], 0, 0], rtol=1e-6, atol=0)
        np.testing.assert_allclose(got.fisher_rao, [0, certain[1], 0, 0], rtol=1e-6, atol=0)

    def test_equal_lens_has_no_divergence(self, implementation, rng):
        hidden, unembedding, targets = problem(rng, 1, 3, 64, 1000, "float32")
        hidden = jnp.concatenate([-hidden, hidden, hidden])
        got = call(implementation)(hidden, unembedding, targets)
        for value in (got.moments.entropy, got.moments.varentropy, got.top1):
            np.testing.assert_array_equal(value[1], value[2])
        cases.assert_near(got.kl[1], np.zeros(3), 1e-6, "kl of an equal row")
        assert (np.asarray(got.kl[0]) > 0).all()

    def test_lenses_do_not_change_the_output(self, implementation, rng):
        hidden, unembedding, targets = problem(rng, 3, 3, 64, 1000, "float32")
        run = call(implementation)
        many, one = run(hidden, unembedding, targets), run(hidden[-1:], unembedding, targets)
        cases.assert_near(many.moments.entropy[-1:], one.moments.entropy, cases.ENTROPY, "entropy")
        cases.assert_near(many.moments.varentropy[-1:], one.moments.varentropy, cases.VARENTROPY, "varentropy")
        cases.assert_near(many.target_logprob, one.target_logprob, cases.LOG_PROBABILITY, "target_logprob")

    @pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # the interpreter of GPU kernels is NumPy
    def test_absent_tokens_make_no_metric_nan(self, implementation, rng):
        hidden, unembedding, targets, logits = with_absent_tokens(rng)
        got = call(implementation)(hidden, unembedding, targets)
        check_absent(got, logits, targets)
        assert (got.logits[:, [EVERYWHERE, OUTPUT]] <= -1e30).all()


# Tokens that are absent (logit −∞) from every row, from the output alone, and two from one lens row alone. The last has
# a probability of e^−200 in the output: 0 in float32, but it is present.
EVERYWHERE, OUTPUT, LENS, UNLIKELY = 3, 150, 400, 699


def with_absent_tokens(rng):
    """Return (hidden, unembedding, targets, float64 logits); products with −2e38 overflow float32 to −∞."""
    hidden, unembedding, targets = (np.array(x) for x in problem(rng, 3, 3, 64, 700, "float32"))
    hidden[..., 2:7], unembedding[:, 2:7] = 0, 0
    hidden[..., 2] = hidden[-1, :, 3] = hidden[0, 0, 4] = hidden[1, 1, 5] = hidden[-1, :, 6] = 8
    for column, token in enumerate((EVERYWHERE, OUTPUT, LENS, UNLIKELY), 2):
        unembedding[token, column] = -2e38
    unembedding[UNLIKELY, 6] = -25
    targets[0] = EVERYWHERE
    logits = oracle.unembed(hidden, unembedding)
    return *map(jnp.asarray, (hidden, unembedding, targets)), np.where(logits < -9e29, -np.inf, logits)


def check_absent(got, logits, targets):
    """Compare with the oracle, infinities included."""
    want = oracle.lens(logits)
    infinite = np.isinf(want["lens_kl"])
    assert np.argwhere(infinite).tolist() == [[0, 0], [1, 1]]
    np.testing.assert_array_equal(np.isposinf(got.kl), infinite)
    cases.assert_near(got.kl[~infinite], want["lens_kl"][~infinite], cases.ENTROPY, "kl")
    cases.assert_near(got.moments.entropy, want["lens_entropy"], cases.ENTROPY, "entropy")
    cases.assert_near(got.moments.varentropy, want["lens_varentropy"], cases.VARENTROPY, "varentropy")
    renyi = np.stack([oracle.renyi(logits[-1], alpha) for alpha in ALPHAS], axis=-1)
    cases.assert_near(got.renyi, renyi, cases.RENYI, "renyi")
    check_distances_to_uniform(got, logits[-1])
    assert got.target_logprob[0] == -np.inf
    cases.assert_near(
        got.target_logprob[1:], oracle.logprob(logits[-1], targets)[1:], cases.LOG_PROBABILITY, "target_logprob"
    )


def test_an_infinite_divergence_survives_parts_of_little_mass(rng):
    """The second part's largest output logit is far below the first's, whose share of the sums is then 0 in float32."""
    hidden, unembedding, targets, _ = with_absent_tokens(rng)
    hidden, unembedding = hidden.at[..., 7].set(8.0), unembedding.at[:, 7].set(0.0).at[350:, 7].set(-40.0)
    logits = oracle.unembed(hidden, unembedding)
    options = dict(alphas=with_uniform_orders(ALPHAS), soft_cap=None, keep_logits=True)
    first, second = (
        xla.unembed_moments(hidden, part, targets=targets - start, **options)
        for start, part in ((0, unembedding[:350]), (350, unembedding[350:]))
    )
    got = first.followed_by(second, 350, ALPHAS).result(ALPHAS)
    check_absent(got, np.where(logits < -9e29, -np.inf, logits), targets)


def test_blocks_of_rows_do_not_change_the_result(rng, monkeypatch):
    hidden, unembedding, targets = problem(rng, 3, 7, 64, 1000, "float32")
    monkeypatch.setattr(xla, "BLOCK_ENTRIES", 2 * 3 * 1000)  # two rows per block, the last one padded
    check(call("xla", 30.0)(hidden, unembedding, targets), hidden, unembedding, targets, 30.0)


@pytest.mark.parametrize(
    ("rows", "most_rows", "vmem", "blocks", "parts"),
    [(13, 24, 1, 2, 2), (3, 768, 1, 1, 2)],
    ids=["blocks of rows and parts of the width", "few rows"],
)
def test_tpu_blocks_do_not_change_the_result(rows, most_rows, vmem, blocks, parts, rng, monkeypatch):
    monkeypatch.setattr(tpu_blocks, "MOST_ROWS", most_rows)
    monkeypatch.setattr(tpu_blocks, "VMEM", vmem)
    plan = tpu_blocks.UnembedBlocks.of(3, rows, 700, 256, itemsize=4)
    assert (plan.count, 256 // plan.width) == (blocks, parts)
    hidden, unembedding, targets = problem(rng, 3, rows, 256, 700, "float32")
    got = call("pallas_tpu_interpret", 30.0)(hidden, unembedding, targets)
    check(got, hidden, unembedding, targets, 30.0)
