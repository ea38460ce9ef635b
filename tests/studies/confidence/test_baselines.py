"""Uncertainty scores of an answer by hand, and of several answers to one prompt."""

import numpy as np
import pytest

from jaxtrace.estimators import estimate
from jaxtrace.studies.confidence import semantic
from jaxtrace.studies.confidence.baselines import ANSWER_SCORES, BASELINE_TEXTS, answer_baselines, sample_baselines
from tests.studies.confidence.traces import answers


def test_baselines_of_an_answer_are_estimators_of_one_pass(rng):
    answered = answers(rng, 1)
    scores = answer_baselines(answered.rows[0], answered.info)
    assert tuple(scores) == ANSWER_SCORES
    table = estimate(answered, ANSWER_SCORES)
    assert scores == {name: table[name][0] for name in ANSWER_SCORES}
    silent = answers(rng, 1, groups=("attention",))
    assert answer_baselines(silent.rows[0], silent.info) == {"length": 3}


def test_equal_answers_are_one_cluster():
    clusters = semantic.cluster_answers(["Paris.", "the paris", "Rome", "PARIS", "Lyon", "Rome!"])
    np.testing.assert_array_equal(clusters, [0, 0, 1, 0, 2, 1])
    expected = -sum(p * np.log(p) for p in (3 / 6, 2 / 6, 1 / 6))
    assert semantic.discrete_semantic_entropy(clusters) == pytest.approx(expected)
    np.testing.assert_array_equal(semantic.cluster_answers(["3 apples", "3 pears"], lambda a, b: a[0] == b[0]), [0, 0])


def test_clusters_are_weighted_by_their_probabilities():
    """Clusters of probability 0.2 + 0.1 and 0.1: shares 3/4 and 1/4."""
    clusters, logprobs = np.array([0, 1, 0]), np.log([0.2, 0.1, 0.1])
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert semantic.semantic_entropy(logprobs, clusters) == pytest.approx(expected)
    assert semantic.semantic_entropy(logprobs - 2000, clusters) == pytest.approx(expected)
    assert semantic.sequence_entropy(logprobs) == pytest.approx(-np.log([0.2, 0.1, 0.1]).mean())


def test_samples_of_a_prompt_have_their_own_baselines():
    scores = sample_baselines([("A", -1.0), ("a", -1.0), ("b", -1.0)])
    assert scores["answer_sets"] == 2
    assert scores["semantic_entropy"] == pytest.approx(scores["discrete_semantic_entropy"])
    assert sample_baselines([("A", -1.0)]) == {}
    assert {*scores, *ANSWER_SCORES} == {*BASELINE_TEXTS}
