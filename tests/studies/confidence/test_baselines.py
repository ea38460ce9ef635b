"""Uncertainty scores of an answer by hand, and of several answers to one prompt."""

import numpy as np
import pytest

from jaxtrace.studies.confidence import semantic
from jaxtrace.studies.confidence.baselines import BASELINE_TEXTS, answer_baselines, sample_baselines, surprise_z

METRICS = {
    "token": np.array([4, 5, 6, 7]),
    "logprob": np.array([-1.0, -0.5, -2.0, 0.0]),
    "entropy": np.array([0.5, 2.0, 1.5, 0.0]),
    "varentropy": np.array([0.25, 1.0, 0.25, 0.0]),
    "top1_prob": np.array([0.7, 0.3, 0.4, 1.0]),
}


def test_baselines_of_an_answer_by_hand():
    """Surprisals 1, ½, 2, 0 minus entropies are ½, −3/2, ½, 0; as z-scores 1, −3/2, 1 and 0 without spread."""
    scores = answer_baselines(METRICS)
    expected = {
        "length": 4,
        "msp": 3.5,
        "perplexity": 0.875,
        "first_entropy": 0.5,
        "mean_entropy": 1.0,
        "max_entropy": 2.0,
        "p90_entropy": np.quantile([0.5, 2.0, 1.5, 0.0], 0.9),
        "mean_varentropy": 0.375,
        "max_varentropy": 1.0,
        "mean_surprise_z": 0.125,
        "max_surprise_z": 1.0,
        "surprisal_gap": -0.125,
        "least_top1_prob": 0.7,
        "entropy_change": 3.5 / 3,
        "entropy_rise": 1.5,
        "spikes": 0.5,
        "spike_run": 2,
    }
    assert scores == pytest.approx(expected)
    np.testing.assert_allclose(surprise_z(METRICS), [1.0, -1.5, 1.0, 0.0])


def test_one_token_has_no_change_and_no_output_leaves_the_length():
    lone = answer_baselines({name: values[:1] for name, values in METRICS.items()})
    assert lone["entropy_change"] == lone["entropy_rise"] == lone["spike_run"] == 0
    assert answer_baselines({"token": np.arange(3)}) == {"length": 3}


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
    assert scores.keys() | answer_baselines(METRICS).keys() == BASELINE_TEXTS.keys()
