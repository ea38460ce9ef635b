"""Estimators of the residual stream, and those that learn from labels, on traces with planted answers."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis

import jaxtrace as jt
from jaxtrace.errors import LackingError, StudyError
from jaxtrace.estimators import trained

LAYERS, HEADS, WIDTH = 4, 2, 6


def row_of(prompt, residuals, length=3, tokens=4, **metrics):
    """Return a row whose steps have residuals [steps, layers, width]."""
    steps = len(residuals)
    metrics = {"token": np.arange(steps, dtype=np.int32), "residuals": np.asarray(residuals, np.float32), **metrics}
    metrics = {"logprob": np.full(steps, -1.0, np.float32), **metrics}
    ids = np.arange(tokens, dtype=np.int32)
    return jt.Row(jt.Prompt(f"p{prompt}", id=f"p{prompt}"), ids, ("",) * tokens, metrics, ("a",) * steps, "a", "length")


def trace_of(rows, **info):
    held = {"mode": "generate", "layers": LAYERS, "heads": HEADS, "alphas": [], "residuals": [2, 4]}
    return jt.Trace(rows, held | info)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_eigen_score_is_the_mean_log_eigenvalue_of_the_samples_of_a_prompt(rng):
    rows = [row_of(prompt, rng.normal(size=(3, 2, WIDTH))) for prompt in (0, 0, 0, 1)]
    scores = jt.estimators.eigen_score(trace_of(rows)).answers
    last = np.stack([row.metrics["residuals"][-1, 0] for row in rows[:3]]).astype(float)  # layer 2 of 4
    centered = last - last.mean(1, keepdims=True)
    expected = np.linalg.slogdet(centered @ centered.T + 1e-3 * np.eye(3))[1] / 3
    np.testing.assert_allclose(scores, [expected] * 3 + [np.nan], rtol=1e-9)


def test_equal_samples_have_the_least_eigen_score(rng):
    one = rng.normal(size=(3, 2, WIDTH))
    apart = [row_of(0, rng.normal(size=(3, 2, WIDTH))) for _ in range(3)]
    same = jt.estimators.eigen_score(trace_of([row_of(0, one)] * 3)).answers[0]
    assert same < jt.estimators.eigen_score(trace_of(apart)).answers[0]


def test_mahalanobis_distance_is_that_of_other_prompts(rng):
    fitted = [row_of(f"f{i}", rng.normal(size=(3, 2, WIDTH))) for i in range(20)]
    rows = [row_of(i, rng.normal(size=(3, 2, WIDTH))) for i in range(5)]
    scores = jt.estimators.mahalanobis(trace_of(rows), training=trace_of(fitted)).answers
    means = lambda rows: np.stack([row.metrics["residuals"][:, 1].astype(float).mean(0) for row in rows])  # noqa: E731
    center, inverse = means(fitted).mean(0), np.linalg.inv(np.cov(means(fitted).T))
    np.testing.assert_allclose(scores, [scipy_mahalanobis(x, center, inverse) for x in means(rows)], rtol=1e-5)
    relative = jt.estimators.relative_mahalanobis(
        trace_of(rows), training=trace_of(fitted), background=trace_of(fitted)
    )
    np.testing.assert_allclose(relative.answers, 0, atol=1e-9)


def test_an_outlier_is_farthest_from_the_answers_to_other_prompts_of_the_trace(rng):
    rows = [row_of(i, rng.normal(size=(3, 2, WIDTH))) for i in range(40)]
    rows[7] = row_of(7, 20 + rng.normal(size=(3, 2, WIDTH)))
    scores = jt.estimators.mahalanobis(trace_of(rows)).answers
    assert np.isfinite(scores).all() and scores.argmax() == 7


def test_few_answers_of_wide_residuals_have_finite_distances(rng):
    rows = [row_of(i, rng.normal(size=(2, 2, 50))) for i in range(8)]
    for name in ("mahalanobis", "rde"):
        assert np.isfinite(getattr(jt.estimators, name)(trace_of(rows)).answers).all()


def planted(rng, count=60):
    """Return rows whose answer is right if the first entry of layer 2 at the last step is positive, and the labels."""
    residuals = rng.normal(size=(count, 3, 2, WIDTH))
    labels = (residuals[:, -1, 0, 0] > 0).astype(float)
    return [row_of(i, each) for i, each in enumerate(residuals)], labels


def auroc(labels, wrong):
    right, other = wrong[labels == 1], wrong[labels == 0]
    return (other[:, None] > right[None]).mean()


def test_a_correctness_probe_finds_what_its_layer_holds_and_nothing_elsewhere(rng):
    rows, labels = planted(rng)
    trace = trace_of(rows)
    assert auroc(labels, jt.estimators.correctness_probe(trace, labels=labels, layer=2).answers) > 0.9
    assert auroc(labels, jt.estimators.correctness_probe(trace, labels=labels, layer=4).answers) < 0.75
    unknown = labels.copy()
    unknown[3] = np.nan
    scores = jt.estimators.correctness_probe(trace, labels=unknown, layer=2).answers
    assert np.flatnonzero(np.isnan(scores)).tolist() == [3]


def test_samples_of_a_prompt_are_held_out_together(rng):
    """Copies of a prompt's answer say nothing where its label is random: a probe that had seen one would know it."""
    residuals, labels = rng.normal(size=(30, 3, 2, WIDTH)), np.repeat(rng.integers(0, 2, 30), 4).astype(float)
    rows = [row_of(i, each) for i, each in enumerate(residuals) for _ in range(4)]
    assert auroc(labels, jt.estimators.correctness_probe(trace_of(rows), labels=labels).answers) < 0.75


def test_a_semantic_entropy_probe_learns_which_prompts_are_answered_in_many_ways(rng):
    rows = []
    for prompt in range(40):
        residual = rng.normal(size=(3, 2, WIDTH))
        for sample in range(3):
            text = f"answer {sample}" if residual[-1, 1, 0] > 0 else "answer"
            rows.append(jt.Row(**{**vars(row_of(prompt, residual)), "text": text}))
    wide = np.array([row.metrics["residuals"][-1, 1, 0] > 0 for row in rows])
    scores = jt.estimators.semantic_entropy_probe(trace_of(rows)).answers
    assert scores[wide].mean() > scores[~wide].mean() + 0.3


def test_lookback_ratio_counts_visible_keys_and_is_one_at_the_first_token():
    mass = np.array([1.0, 0.6, 0.2, 0.0], np.float32)[:, None, None].repeat(3, 1).repeat(HEADS, 2)
    mass[:, 1] = np.nan  # a layer without attention
    row = row_of(0, np.zeros((4, 2, WIDTH)), tokens=4, attention_prompt_mass=mass)
    ratios = trained.lookback_ratios(row, [None, None, 3], (1, 2, 3))
    # Queries at 3, 4, 5, 6; the prompt is at 0 to 3. Layer 1 sees all, layer 3 the last three positions.
    whole = [1, (0.6 / 4) / (0.6 / 4 + 0.4 / 1), (0.2 / 4) / (0.2 / 4 + 0.8 / 2), 0]
    window = [1, (0.6 / 2) / (0.6 / 2 + 0.4 / 1), (0.2 / 1) / (0.2 / 1 + 0.8 / 2), 0]
    np.testing.assert_allclose(ratios, np.array([whole, whole, window, window]).T, rtol=1e-6)
    np.testing.assert_array_equal(trained.first_visible(np.array([3, 4, 9]), {"chunk": 4}), [0, 4, 8])


@pytest.mark.parametrize("span", [None, 2])
def test_the_lookback_lens_learns_from_the_heads(rng, span):
    labels = rng.integers(0, 2, 50).astype(float)
    rows = []
    for i, label in enumerate(labels):
        mass = np.clip(rng.normal(0.6 if label else 0.4, 0.1, (5, LAYERS, HEADS)), 0, 1).astype(np.float32)
        rows.append(row_of(i, np.zeros((5, 2, WIDTH)), attention_prompt_mass=mass))
    scores = jt.estimators.lookback_lens(trace_of(rows), labels=labels, span=span).answers
    assert auroc(labels, scores) > 0.9


def test_what_is_missing_is_named(rng):
    rows, _ = planted(rng, 6)
    trace = trace_of(rows)
    with pytest.raises(LackingError, match=r"mahalanobis: needs residuals of layer 3; .*--residuals 3"):
        jt.estimators.mahalanobis(trace, layer=3)
    with pytest.raises(LackingError, match="eigen_score: has one answer to each prompt"):
        jt.estimators.eigen_score(trace)
    with pytest.raises(LackingError, match="correctness_probe: needs answers of both classes to two prompts"):
        jt.estimators.correctness_probe(trace, labels=np.ones(6))
    with pytest.raises(LackingError, match="mahalanobis: 6 prompts are also in the trace to fit"):
        jt.estimators.mahalanobis(trace, training=trace)
    without = jt.Row(**{**vars(rows[0]), "metrics": {"token": rows[0].metrics["token"]}})
    with pytest.raises(LackingError, match=r"rde: has no residuals; .*--residuals"):
        jt.estimators.rde(trace_of([without]))


def test_a_residual_that_overflowed_has_no_score_and_the_others_have(rng):
    rows = [row_of(prompt, rng.normal(size=(3, 2, WIDTH))) for prompt in range(6) for _ in range(3)]
    rows[4].metrics["residuals"][-1, :, 3] = np.inf
    trace, labels = trace_of(rows), np.arange(18) % 2
    scores = [jt.estimators.eigen_score(trace), jt.estimators.mahalanobis(trace), jt.estimators.rde(trace)]
    scores.append(jt.estimators.correctness_probe(trace, labels=labels))
    for each in scores:
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(each.answers)), [4])


def test_a_trace_of_another_model_is_no_training(rng):
    rows = [row_of(prompt, rng.normal(size=(3, 2, WIDTH))) for prompt in range(8)]
    trace, other = trace_of(rows[:4], checkpoint="a"), trace_of(rows[4:], checkpoint="b")
    with pytest.raises(LackingError, match="two answers of the same model"):
        jt.estimators.mahalanobis(trace, training=other)


@pytest.mark.parametrize("labels", [[1, 0], ["a"] * 4, [0.5, 1, 0, 1], np.zeros((4, 1))])
def test_labels_that_are_not_one_per_answer_or_not_0_and_1_are_refused(rng, labels):
    mass = np.full((3, LAYERS, HEADS), 0.5, np.float32)
    trace = trace_of([row_of(i, rng.normal(size=(3, 2, WIDTH)), attention_prompt_mass=mass) for i in range(4)])
    for name in ("correctness_probe", "lookback_lens"):
        with pytest.raises(StudyError, match=f"^{name}: .*; give "):
            getattr(jt.estimators, name)(trace, labels=labels)
