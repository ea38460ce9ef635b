"""Nearest neighbours and their folds, compared with the written-out protocol."""

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from jaxtrace.errors import StudyError
from jaxtrace.studies.lens import classify


@pytest.fixture
def three(rng):
    """Return features, labels and groups of 90 rows, three rows per group."""
    labels = np.repeat(["a", "b", "c"], 30)
    features = rng.normal(size=(90, 5)) + np.array([[0.0], [0.7], [1.4]])[np.repeat([0, 1, 2], 30)]
    return features, labels, np.arange(90) // 3


def auc_by_pairs(positive, scores):
    """Return P(score of a positive > score of a negative), where a tie counts half."""
    pairs = [(p, n) for p in scores[positive] for n in scores[~positive]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "b")])
def test_macro_auc_counts_pairs(rng, names):
    labels = rng.choice(names, 40)
    probabilities = rng.dirichlet(np.ones(len(names)), 40).round(1)
    probabilities[:, -1] = 1 - probabilities[:, :-1].sum(1)
    one_against_rest = [auc_by_pairs(labels == name, probabilities[:, i]) for i, name in enumerate(names)]
    assert classify.macro_auc(labels, probabilities, names) == pytest.approx(np.mean(one_against_rest))


def test_neighbours_match_brute_force(three):
    features, labels, _ = three
    splits = classify.stratified(labels, 10, 42)
    found = classify.neighbours(features, labels, splits, 5)
    for (train, test), auc, accuracy in zip(splits, found.auc, found.accuracy, strict=True):
        assert sorted([*train, *test]) == list(range(90))
        shares = []
        for i in test:
            nearest = sorted(train, key=lambda j: ((features[i] - features[j]) ** 2).sum())[:5]
            shares.append([np.mean(labels[nearest] == name) for name in "abc"])
        shares = np.array(shares)
        assert auc == pytest.approx(
            np.mean([auc_by_pairs(labels[test] == n, shares[:, i]) for i, n in enumerate("abc")])
        )
        assert accuracy == pytest.approx(np.mean(np.array(list("abc"))[shares.argmax(1)] == labels[test]))
    assert found.auc.mean() > 0.7


def test_groups_are_never_on_both_sides(three):
    _, labels, groups = three
    splits = classify.grouped(labels, groups, 10, 42)
    assert len(splits) == 10
    assert classify.smallest_training_set(splits) == 90 - max(len(test) for _, test in splits)
    for train, test in splits:
        assert not set(groups[train]) & set(groups[test])
        assert set(labels[test]) == set("abc")
    assert sorted(i for _, test in splits for i in test) == list(range(90))


def test_folds_are_as_few_as_the_groups_of_a_class_allow(three):
    _, labels, groups = three
    few = np.where(labels == "a", groups % 4, groups + 10)
    assert len(classify.grouped(labels, few, 10, 42)) == 4
    assert classify.grouped(labels, labels, 10, 42) == []  # a class of one group is either learnt from or held out


def test_grouping_removes_copies_across_folds(rng):
    """Samples of one prompt are near each other, classes are not: ungrouped neighbours find a sample's copies."""
    groups = np.repeat(np.arange(40), 5)
    labels = np.where(groups % 2, "a", "b")
    features = rng.normal(size=(40, 8))[groups] + rng.normal(0, 0.01, (200, 8))
    published = classify.neighbours(features, labels, classify.stratified(labels, 10, 42), 3)
    held_out = classify.neighbours(features, labels, classify.grouped(labels, groups, 10, 42), 3)
    assert published.auc.mean() > 0.99
    assert abs(held_out.auc.mean() - 0.5) < 0.2


def test_removing_a_covariate_removes_what_it_explains(rng):
    labels = np.repeat(["a", "b"], 50)
    length = np.where(labels == "a", 1.0, 2.0) + rng.normal(0, 0.5, 100)
    features = length[:, None] * np.array([1.0, -2.0, 0.5]) + rng.normal(0, 0.05, (100, 3))
    splits = classify.stratified(labels, 10, 42)
    assert classify.neighbours(features, labels, splits, 11).auc.mean() > 0.85
    left = classify.neighbours(features, labels, splits, 11, length[:, None]).auc.mean()
    assert abs(left - 0.5) < 0.15
    train, test = splits[0]
    design = np.column_stack([np.ones(100), length])
    weights = np.linalg.lstsq(design[train], features[train], rcond=None)[0]
    residuals = features - design @ weights
    model = KNeighborsClassifier(11).fit(residuals[train], labels[train])
    wanted = auc_by_pairs(labels[test] == "b", model.predict_proba(residuals[test])[:, 1])
    found = classify.neighbours(features, labels, [splits[0]], 11, length[:, None])
    assert found.auc[0] == pytest.approx(wanted)


def test_guesses_score_at_chance(three):
    _, labels, _ = three
    found = classify.guesses(labels, classify.stratified(labels, 10, 42), 42)
    assert abs(found.auc.mean() - 0.5) < 0.12
    assert abs(found.accuracy.mean() - 1 / 3) < 0.15


def test_intervals_over_folds_are_corrected(rng):
    values = rng.normal(0.3, 0.1, 10)
    splits = [(np.arange(90), np.arange(10))] * 10
    found, p, plain = classify.over_folds(values, splits)
    assert plain == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    error = np.sqrt(values.var(ddof=1) * (1 / 10 + 10 / 90))
    assert p == pytest.approx(2 * stats.t.sf(values.mean() / error, 9))
    low, high = stats.t.interval(0.95, 9, values.mean(), error)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((values.mean(), low, high, 100))
    assert p > plain
    same, p, _ = classify.over_folds(np.ones(5), splits[:5])
    assert (same.low, same.high, p) == (1, 1, 2 / 2**5)  # a sign test


def test_too_few_classes_or_answers_are_refused():
    with pytest.raises(StudyError, match="all 4 answers are of the class 'a'; give answers of two classes"):
        classify.check_classes(np.array(["a"] * 4), 2)
    with pytest.raises(StudyError, match="the class 'b' has 3 answers, fewer than the 10 folds"):
        classify.check_classes(np.array(["a"] * 20 + ["b"] * 3), 10)
