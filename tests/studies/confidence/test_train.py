"""Cross-validated classifiers fold by fold, and on data from which it is known what can be learned."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from jaxtrace.errors import StudyError
from jaxtrace.statistics.ranking import auroc
from jaxtrace.studies.confidence.train import cross_validated

ROWS = 200
SINGLES = np.arange(ROWS)


def frame(x):
    return pd.DataFrame(x, columns=["a", "b"])


def test_every_fold_is_predicted_by_the_others(rng):
    x = rng.normal(size=(ROWS, 2)) * [1, 30] + [5, 0]
    labels = (rng.random(ROWS) < 1 / (1 + np.exp(5 - x[:, 0] - x[:, 1] / 30))).astype(float)
    groups = SINGLES // 2
    probabilities, whole = cross_validated(frame(x), labels, groups, penalty=0.02, seed=3)

    def expected(train, rows):
        mean, sd = x[train].mean(0), x[train].std(0)
        model = LogisticRegression(C=1 / (0.02 * len(train)), tol=1e-8).fit((x[train] - mean) / sd, labels[train])
        return model.predict_proba((x[rows] - mean) / sd)[:, 1]

    for train, rows in StratifiedGroupKFold(5, shuffle=True, random_state=3).split(x, labels, groups):
        assert not set(groups[train]) & set(groups[rows])
        np.testing.assert_allclose(probabilities[rows], expected(train, rows), atol=1e-4)
    np.testing.assert_allclose(whole.probabilities(frame(x)), expected(SINGLES, SINGLES), atol=1e-4)


@pytest.mark.parametrize(("hidden", "penalty"), [(0, 10.0), (8, 0.7)])
def test_a_free_feature_is_learned_under_a_large_penalty(rng, hidden, penalty):
    x = rng.normal(size=(ROWS, 2))
    labels = (x.sum(1) + rng.normal(size=ROWS) > 0).astype(float)
    settings = {"hidden": hidden, "penalty": penalty}
    probabilities, whole = cross_validated(frame(x), labels, SINGLES, free=["a"], **settings)
    assert auroc(labels, probabilities, resamples=10).value == pytest.approx(
        auroc(labels, x[:, 0], resamples=10).value, abs=0.03
    )
    first = whole.arrays["hidden.kernel" if hidden else "out.kernel"]
    assert np.abs(first[1]).max() < 0.1 < np.abs(first[0]).max()
    unlearned = cross_validated(frame(x), labels, SINGLES, **settings)[1]
    assert np.abs(unlearned.arrays["out.kernel"]).max() < 0.1


def test_the_network_learns_what_is_not_linear(rng):
    x = rng.choice([-1.0, 1.0], (ROWS, 2)) + rng.normal(0, 0.2, (ROWS, 2))
    labels = (x.prod(1) > 0).astype(float)
    linear = cross_validated(frame(x), labels, SINGLES)[0]
    curved, whole = cross_validated(frame(x), labels, SINGLES, hidden=8, penalty=1e-4)
    assert auroc(labels, linear, resamples=10).value < 0.7
    assert auroc(labels, curved, resamples=10).value > 0.95
    assert (np.round(whole.probabilities(frame(x))) == labels).mean() > 0.95


def test_random_labels_are_not_learned(rng):
    """Intervals contain 0.5 in most of 20 worlds, not in 95 %: no resample trains the classifier again."""
    estimates = []
    for _ in range(20):
        x, labels = rng.normal(size=(ROWS, 2)), (rng.random(ROWS) < 0.5).astype(float)
        estimates.append(auroc(labels, cross_validated(frame(x), labels, SINGLES)[0], resamples=200))
    assert np.mean([estimate.value for estimate in estimates]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([estimate.low < 0.5 < estimate.high for estimate in estimates]) >= 0.6


def test_features_that_identify_the_prompt_do_not_help(rng):
    """8 rows of one prompt share a label: its features predict it within prompts, and nothing across prompts."""
    groups = SINGLES // 8
    labels = (rng.permutation(25) < 12).astype(float)[groups]
    x = np.stack([np.sin(groups * 2.4), np.cos(groups * 2.4)], 1)  # 25 points on a circle
    honest = cross_validated(frame(x), labels, groups, hidden=8, penalty=1e-4, folds=3)[0]
    leaking = cross_validated(frame(x), labels, SINGLES, hidden=8, penalty=1e-4, folds=3)[0]
    across = auroc(labels, honest, groups=groups, resamples=200)
    within = auroc(labels, leaking, resamples=200)
    assert across.low < 0.5  # 25 groups: the standard error is 0.12
    assert across.value < 0.75 < 0.85 < within.low


def test_a_missing_feature_counts_as_the_mean(rng):
    x, labels = rng.normal(size=(ROWS, 2)), (rng.random(ROWS) < 0.5).astype(float)
    x[::3, 1] = np.nan
    probabilities, whole = cross_validated(frame(x), labels, SINGLES)
    assert np.isfinite(probabilities).all()
    filled = np.where(np.isnan(x), whole.arrays["mean"], x)
    np.testing.assert_allclose(whole.arrays["mean"], np.nanmean(x, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.probabilities(frame(x)), whole.probabilities(frame(filled)), rtol=1e-6)


def test_too_few_groups_of_a_class_are_refused(rng):
    x = rng.normal(size=(ROWS, 2))
    with pytest.raises(StudyError, match=r"0 prompts, .* have an answer that is wrong, and there are 5 folds"):
        cross_validated(frame(x), np.ones(ROWS), SINGLES)
    few = (SINGLES < 4).astype(float)
    with pytest.raises(StudyError, match=r"4 prompts, or groups of them, have an answer that is right, .*; give more"):
        cross_validated(frame(x), few, SINGLES)
    with pytest.raises(StudyError, match="1 prompts"):
        cross_validated(
            frame(x), np.repeat([1.0, 0.0], [20, 180]), np.repeat([0, 1, 2, 3, 4, 5], [20, 40, 40, 40, 40, 20])
        )
