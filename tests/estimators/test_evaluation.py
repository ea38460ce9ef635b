"""Evaluations of estimators: measures, signs, unknown labels, and intervals over prompts."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from jaxtrace.errors import StudyError
from jaxtrace.estimators import Scores, estimator, evaluate
from jaxtrace.estimators.evaluation import held_out_probabilities
from jaxtrace.estimators.registry import ESTIMATORS


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Estimators "doubt" and "trust", which are forgotten after a test."""
    for part in ("_objects", "_origins"):
        monkeypatch.setattr(ESTIMATORS, part, {})
    for name, uncertain in (("doubt", True), ("trust", False)):

        def scores(trace):
            return Scores(np.zeros(len(trace.rows)))

        scores.__name__ = scores.__qualname__ = name
        estimator(formula="0", higher_is_uncertain=uncertain)(scores)


def table(doubt, groups=None, trust=None, tokens=None):
    n = len(doubt)
    columns = {"run": "", "row": range(n), "prompt": "p", "group": range(n) if groups is None else groups}
    columns |= {"completion": "", "tokens": [5] * n if tokens is None else tokens, "doubt": doubt}
    return pd.DataFrame(columns | ({} if trust is None else {"trust": trust}))


def test_measures_agree_with_scikit_learn_and_signs_are_turned():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    doubt = rng.normal(-labels, 1.5)
    measured = evaluate(table(doubt, trust=-doubt), labels, resamples=200).set_index("estimator")
    auroc = roc_auc_score(labels, -doubt)
    assert measured["auroc"].tolist() == pytest.approx([auroc, auroc])
    assert measured["auroc_low"]["doubt"] < auroc < measured["auroc_high"]["doubt"]
    assert measured["auroc_same_length"]["doubt"] == pytest.approx(auroc)  # lengths are equal
    assert measured.loc["doubt", ["n", "right", "groups"]].tolist() == [60, labels.sum(), 60]
    assert 0 <= measured["ece"]["doubt"] < 0.4 and measured["passes"]["doubt"] == "one"


def test_the_best_auroc_is_first_and_perfect_scores_have_perfect_measures():
    labels = np.array([1, 1, 0, 0, 1, 0] * 2)
    noise = np.array([1.0, 4, 2, 3, 3, 1] * 2)
    measured = evaluate(table(noise, trust=labels + 0.0), labels, resamples=50)
    assert measured["estimator"].tolist() == ["trust", "doubt"]
    best = measured.iloc[0]
    assert (best["auroc"], best["prr"], best["auprc"]) == pytest.approx((1, 1, 1))
    assert best["risk"] == pytest.approx(np.mean([max(0, k - 6) / k for k in range(1, 13)]))


def test_unknown_labels_and_undefined_scores_do_not_count():
    doubt = np.array([0.0, 1, 2, 3, np.nan, 5, np.inf])
    labels = np.array([1, 1, 0, np.nan, 0, 0, 0])
    measured = evaluate(table(doubt), labels, resamples=20).iloc[0]
    assert (measured["n"], measured["right"], measured["auroc"]) == (4, 2, 1.0)
    undefined = evaluate(table(doubt, trust=[1.0, 1, *[np.nan] * 5]), labels, resamples=20)
    assert undefined["estimator"].tolist() == ["doubt", "trust"]
    assert np.isnan(undefined["auroc"][1]) and undefined["n"][1] == 2


def test_samples_of_a_prompt_are_resampled_together():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 20), 8)
    doubt = np.repeat(rng.normal(-labels[::8], 1.5), 8) + rng.normal(0, 0.01, 160)
    alone = evaluate(table(doubt), labels, resamples=200).iloc[0]
    together = evaluate(table(doubt, groups=np.arange(160) // 8), labels, resamples=200).iloc[0]
    assert together["groups"] == 20
    assert together["auroc_high"] - together["auroc_low"] > 1.5 * (alone["auroc_high"] - alone["auroc_low"])


def test_probabilities_are_of_held_out_groups():
    """A score that only tells which prompt it is of predicts nothing about other prompts."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 4)
    right = np.repeat(rng.permutation(10) < 5, 4)
    held_out = held_out_probabilities(right, right + 0.0, groups)
    assert (held_out[right] > 0.9).all() and (held_out[~right] < 0.1).all()
    shuffled = held_out_probabilities(right, rng.normal(size=40), groups)
    assert np.abs(shuffled - 0.5).max() < 0.45
    assert np.isnan(held_out_probabilities(groups == 0, right + 0.0, groups)).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, np.nan], "labels: all 2 labelled answers are right; give labels of right and of wrong answers"),
        ([0, 0, 0], "labels: all 3 labelled answers are wrong"),
        ([np.nan] * 3, "labels: no answer has a label"),
        ([1, 0], "2 labels for 3 answers; give one for each answer"),
    ],
)
def test_labels_that_compare_nothing_are_refused(labels, message):
    with pytest.raises(StudyError, match=message):
        evaluate(table([0.0, 1, 2]), labels)
