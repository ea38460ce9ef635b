"""The Dirichlet sampler: its parts against SciPy and Monte-Carlo, and its behaviour per row."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

import jaxtrace
from jaxtrace import ConfigError, Dslider, Probes, StepTrace
from jaxtrace.engine.samplers import dirichlet
from jaxtrace.engine.samplers.dslider import MOST_TEMPERATURE, PACE, target_entropy
from jaxtrace.engine.samplers.quadrants import ADAPTIVE, FLOWING, RESAMPLING, TREADING
from jaxtrace.engine.samplers.tempering import entropy_moments, tuned_temperature
from jaxtrace.engine.settings import Settings
from jaxtrace.tasks import load_task
from tests import oracle

ALPHAS = [np.array(alpha, float) for alpha in ([0.3, 1.0, 4.0, 0.05], [2.0, 2.0, 2.0, 2.0], [30.0, 5.0, 0.5, 80.0])]


def test_trigamma_equals_scipy():
    x = np.concatenate([np.geomspace(1e-4, 1e6, 400), np.linspace(5.5, 6.5, 21)]).astype(np.float32)
    np.testing.assert_allclose(dirichlet.trigamma(jnp.asarray(x)), special.polygamma(1, x.astype(float)), rtol=2e-6)


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_log_likelihood_equals_scipy(alpha):
    p = np.random.default_rng(0).dirichlet([2.0] * len(alpha), 5)
    got = dirichlet.log_likelihood(jnp.asarray(alpha, jnp.float32), jnp.log(jnp.asarray(p, jnp.float32)))
    np.testing.assert_allclose(got, [stats.dirichlet(alpha).logpdf(one) for one in p], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_expected_entropy_and_varentropy_equal_monte_carlo(alpha):
    """Allow four standard errors of 400,000 draws."""
    p = np.random.default_rng(1).dirichlet(alpha, 400_000)
    logp = np.log(np.where(p > 0, p, 1))
    entropy = -(p * logp).sum(-1)
    varentropy = (p * (logp + entropy[:, None]) ** 2).sum(-1)
    for function, drawn in ((dirichlet.expected_entropy, entropy), (dirichlet.expected_varentropy, varentropy)):
        error = 4 * drawn.std() / math.sqrt(len(drawn)) + 1e-6
        assert abs(float(function(jnp.asarray(alpha, jnp.float32))) - drawn.mean()) < error


def test_draws_have_the_expected_mean_log():
    alpha, draws = np.array([0.3, 1.0, 4.0]), 20_000
    keys = jax.random.split(jax.random.key(2), draws)
    logp = np.asarray(jax.jit(dirichlet.draw_log)(keys, jnp.broadcast_to(jnp.asarray(alpha, jnp.float32), (draws, 3))))
    want = special.digamma(alpha) - special.digamma(alpha.sum())
    error = 4 * np.sqrt(special.polygamma(1, alpha) / draws)
    assert (np.abs(logp.mean(0) - want) < error).all()
    np.testing.assert_allclose(np.exp(logp).sum(-1), 1, atol=1e-5)


def slow_fit(target):
    """Fit by root finding in float64: the one unknown is Σα, since each α is ψ⁻¹(target + ψ(Σα))."""

    def inverse(y):
        return math.exp(optimize.brentq(lambda x: special.digamma(math.exp(x)) - y, -60, 60))

    def alphas(log_total):
        return np.array([inverse(t + special.digamma(math.exp(log_total))) for t in target])

    return alphas(optimize.brentq(lambda x: alphas(x).sum() / math.exp(x) - 1, -8, 14))


def test_fit_equals_root_finding():
    """Fit several sizes at once, from a flat start and from a near one."""
    rng = np.random.default_rng(3)
    samples = [
        rng.dirichlet(alpha, 6) for alpha in (np.full(12, 0.4), rng.gamma(1, 3, 12), rng.gamma(0.3, 20, 12) + 0.05)
    ]
    target = np.stack([np.log(np.maximum(p, 1e-8)).mean(0) for p in samples])
    want = np.stack([slow_fit(row) for row in target])
    fit = jax.jit(dirichlet.fit)
    for start in (np.ones_like(want), want * rng.uniform(0.5, 2, want.shape)):
        got = fit(jnp.asarray(target, jnp.float32), jnp.asarray(start, jnp.float32))
        np.testing.assert_allclose(got, want, rtol=5e-3)
        np.testing.assert_allclose(dirichlet.expected_log(got), target, atol=2e-4)


def test_fit_without_a_maximum_ends():
    """A single distribution has none: the likelihood grows with α."""
    logp = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]]))
    got = np.asarray(jax.jit(dirichlet.fit)(logp, jnp.ones((2, 3))))
    assert np.isfinite(got).all() and (got <= 1e6).all()
    np.testing.assert_allclose(got / got.sum(-1, keepdims=True), np.exp(logp), atol=2e-2)


def test_derivatives_of_entropy_equal_differences():
    """Compare dH/dT = μ₂ / T and d²H/dT² = −(μ₃ + 3 μ₂) / T² with differences in float64."""
    logits = np.random.default_rng(4).normal(0, 2, 40)
    h, moments = lambda t: float(oracle.entropy(logits / t)), jax.jit(entropy_moments)
    for t, step in ((0.5, 1e-3), (1.0, 1e-3), (3.0, 1e-2)):
        _, second, third = (float(x[0]) for x in moments(jnp.asarray(logits[None], jnp.float32), jnp.array([t])))
        np.testing.assert_allclose(second / t, (h(t + step) - h(t - step)) / (2 * step), rtol=1e-3)
        bend = (h(t + step) - 2 * h(t) + h(t - step)) / step**2
        np.testing.assert_allclose(-(third + 3 * second) / t**2, bend, rtol=1e-2)


def test_tuned_temperature_equals_root_finding():
    """Use peaked and flat rows, a row with removed tokens, and targets over the whole range."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, rng.uniform(0.3, 8, (24, 1)), (24, 50))
    logits[3, 7:] = -1e30
    most = np.where(np.arange(24) == 3, math.log(7), math.log(50))
    target = most * np.linspace(0.05, 0.97, 24)
    want = [
        math.exp(optimize.brentq(lambda x, row=row, h=h: float(oracle.entropy(row / math.exp(x))) - h, -8, 9))
        for row, h in zip(np.where(logits < -1e29, -np.inf, logits), target, strict=True)
    ]
    tune = jax.jit(tuned_temperature)
    got = tune(jnp.asarray(logits, jnp.float32), jnp.asarray(target, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=5e-3)
    ends = tune(jnp.asarray(logits[:3], jnp.float32), jnp.array([9.0, -1.0, jnp.nan]))
    np.testing.assert_allclose(ends[:2], [1e4, 1e-4], rtol=1e-2)


def metrics_of(logits):
    of = lambda function: jnp.asarray(function(np.asarray(logits, np.float64)), jnp.float32)  # noqa: E731
    return StepTrace(entropy=of(oracle.entropy), varentropy=of(oracle.varentropy))


@pytest.fixture(scope="module")
def sampler():
    return Dslider(support=(1, 3, 4, 8, 9, 15, 16, 23, 29), pause=2)


@pytest.fixture(scope="module")
def draw(sampler):
    return jax.jit(sampler)


def steps(rng, rows=6, vocab=30):
    """Return logits of a peaked, a two-way, a broad, a flat and other rows."""
    logits = rng.normal(0, 1.5, (rows, vocab))
    logits[0, 5] += 30
    logits[2] = rng.normal(0, 0.05, vocab)
    logits[4] = 2.5 * rng.normal(0, 1, vocab) ** 2
    return jnp.asarray(logits, jnp.float32)


def test_states_stay_finite_over_many_steps(sampler, draw):
    """A peaked row takes its most likely token; a flat row pauses at every other step."""
    rng, state = np.random.default_rng(6), sampler.init(6, 30)
    tokens, quadrants = [], []
    for i in range(12):
        logits = steps(rng)
        keys = jax.random.split(jax.random.key(i), 6)
        drawn = draw(logits, keys, metrics_of(logits), state)
        state = drawn.state
        tokens.append(np.asarray(drawn.token))
        quadrants.append(np.asarray(drawn.quadrant))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state) if x.dtype != bool)
    tokens, quadrants = np.stack(tokens), np.stack(quadrants)
    assert (tokens[:, 0] == 5).all() and (quadrants[:, 0] == FLOWING).all()
    assert (quadrants[:, 2] == TREADING).all()
    np.testing.assert_array_equal(tokens[:, 2] == 2, np.arange(12) % 2 == 0)
    assert (quadrants[:, 1] == ADAPTIVE).any()
    assert (np.asarray(state.alpha) > 0).all() and state.started.all()


def test_draws_of_a_row_do_not_depend_on_the_other_rows(sampler, draw):
    """Draw row 3 at its own index, and at index 5 among other rows."""
    rng, order = np.random.default_rng(7), np.array([0, 1, 2, 4, 5, 3])
    state, other_state = sampler.init(6, 30), sampler.init(6, 30)
    for i in range(4):
        logits, keys = steps(rng), jax.random.split(jax.random.key(i), 6)
        others = jnp.concatenate([steps(rng)[:5], logits[3:4]])
        one = draw(logits, keys, metrics_of(logits), state)
        other = draw(others, keys[order], metrics_of(others), other_state)
        state, other_state = one.state, other.state
        assert one.token[3] == other.token[5]
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(other_state), strict=True):
            np.testing.assert_allclose(x[3], y[5], rtol=1e-4, atol=1e-5)


def test_resampling_draws_another_token(sampler, draw):
    """Draw the same rows twice: with moderate metrics, and with a high entropy and varentropy."""
    logits, keys = steps(np.random.default_rng(8)), jax.random.split(jax.random.key(0), 6)
    metrics_with = lambda h, v: StepTrace(entropy=jnp.full(6, h), varentropy=jnp.full(6, v))  # noqa: E731
    state = sampler.init(6, 30)
    first, again = (draw(logits, keys, metrics_with(*point), state) for point in ((1.0, 1.0), (3.0, 3.0)))
    assert (first.quadrant == ADAPTIVE).all() and (again.quadrant == RESAMPLING).all()
    assert (first.token != again.token).all()


def test_resampling_never_draws_the_first_token_again():
    """Draw 400 outlier rows, each with its own key: once plainly, and once resampled under the same key."""
    rows, logits = 400, jnp.asarray(np.random.default_rng(9).normal(0, 1, 8), jnp.float32)
    sampler = Dslider(support=8, outlier_bias=0.0)
    draw = jax.jit(sampler, compiler_options={"xla_backend_optimization_level": 0})
    state, keys = sampler.init(rows, 8), jax.random.split(jax.random.key(4), rows)
    logits = jnp.broadcast_to(logits, (rows, 8))
    metrics_with = lambda h, v: StepTrace(entropy=jnp.full(rows, h), varentropy=jnp.full(rows, v))  # noqa: E731
    first, again = (draw(logits, keys, metrics_with(*point), state) for point in ((1.0, 1.0), (3.0, 3.0)))
    assert (again.quadrant == RESAMPLING).all() and len(np.unique(first.token)) > 4
    assert (first.token != again.token).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(again.state) if x.dtype != bool)


def test_running_means_after_two_steps(sampler, draw):
    """Compare with running means by hand for a peaked row, which takes its most likely token."""
    state, history = sampler.init(6, 30), []
    for logit in (9.0, 8.0):
        logits = jnp.zeros((6, 30)).at[:, 4].set(logit)
        drawn = draw(logits, jax.random.split(jax.random.key(1), 6), metrics_of(logits), state)
        state = drawn.state
        assert int(drawn.token[0]) == 4
        history.append((float(oracle.entropy(logits[0])), -float(oracle.logprob(logits[0], 4))))
    (h1, s1), (h2, s2) = history
    np.testing.assert_allclose(state.entropy[0, 1], 0.7 * h2 + 0.3 * h1, rtol=1e-4)
    cross = 0.65 * s2 + 0.35 * (0.65 * s1 + 0.35 * h1)
    np.testing.assert_allclose(state.cross_entropy[0, 1], cross, rtol=1e-4)


def test_a_target_is_what_the_tempered_row_can_reach(rng):
    """Peaked, broad, flat and masked rows of a large vocabulary: the published targets of the first exceed ln V."""
    vocab = 3_000
    logits = rng.normal(0, [[6.0], [2.0], [0.1], [3.0], [3.0]], (5, vocab))
    logits[0, 5] += 40
    logits[3, 7:] = -1e30
    entropy = oracle.entropy(np.where(logits < -1e29, -np.inf, logits) / 2)
    state = Dslider(support=50).init(5, vocab)
    pairs = jnp.full((5, 2), 2.0).at[4].set(0.05)  # the published targets: 16 nats, and 0.2 + 4 / 5 of the last row
    state = dataclasses.replace(state, entropy=pairs, cross_entropy=pairs, temperature=jnp.ones(5).at[4].set(10.0))
    target = np.asarray(jax.jit(target_entropy)(jnp.asarray(logits, jnp.float32), state))
    np.testing.assert_allclose(target[:4], entropy[:4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(target[4], 0.2 + 0.8, rtol=1e-6)
    temperature = jax.jit(tuned_temperature)(jnp.asarray(logits, jnp.float32), jnp.asarray(target))
    got, _, _ = entropy_moments(jnp.asarray(logits, jnp.float32), temperature)
    np.testing.assert_allclose(got, target, atol=2e-4)
    assert (np.asarray(temperature) <= MOST_TEMPERATURE * (1 + 1e-2)).all() and (target < math.log(vocab)).all()


@dataclasses.dataclass(frozen=True)
class Recorded(Dslider):
    """Dslider that appends the target and the entropy of every drawn distribution to `steps`."""

    steps: list = dataclasses.field(default_factory=list, compare=False)

    def __call__(self, logits, keys, metrics, state):
        drawn = super().__call__(logits, keys, metrics, state)
        entropy = (drawn.state.entropy[:, 0] - (1 - PACE) * state.entropy[:, 0]) / PACE
        learned = jnp.any(drawn.state.alpha != state.alpha, axis=-1) & state.started
        target = target_entropy(logits, state)
        jax.debug.callback(lambda *step: self.steps.append(np.stack(step)), learned, target, entropy)
        return drawn


@pytest.mark.nightly
def test_text_of_a_real_model_is_fluent_and_its_entropy_follows_the_target(smollm2, shared_data):
    model, sampler = jaxtrace.load(str(smollm2), mesh=None), Recorded()
    prompts = load_task("truthfulqa", shared_data / "truthfulqa" / "TruthfulQA.csv", sample=8)
    settings = Settings(Probes.of("output"), batch_size=8, max_new_tokens=32, sampler=sampler)
    rows = [row for batch in model.generate_rows(model.encode(prompts, chat=True), settings) for _, row in batch]
    surprisal = -np.concatenate([row.metrics["logprob"] for row in rows])
    assert len(surprisal) > 100 and surprisal.mean() < 5
    learned, target, entropy = np.concatenate(sampler.steps, axis=-1)
    assert learned.sum() > 50 and (target < math.log(model.config.vocab_size)).all()
    assert np.corrcoef(target[learned > 0], entropy[learned > 0])[0, 1] > 0.8


def test_support_out_of_range_is_refused():
    assert Dslider(support=50).init(2, 30).alpha.shape == (2, 30)
    assert Dslider(support=20).init(2, 30).alpha.shape == (2, 20)
    for support in (1, (3, 3), (4, 2), (-1, 2)):
        with pytest.raises(ConfigError, match="at least two token ids, ascending"):
            Dslider(support=support)
    with pytest.raises(ConfigError, match="31 is no token of a vocabulary of 30"):
        Dslider(support=(1, 31)).init(1, 30)
    assert hash(Dslider(support=(1, 2))) != hash(dataclasses.replace(Dslider(), support=(1, 3)))
