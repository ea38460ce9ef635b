"""Uncertainties of an answer by hand, and of several answers to one prompt."""

import numpy as np
import pytest

from jaxtrace.studies.confidence.baselines import TEXTS, baselines, sample_baselines, surprise_z
from jaxtrace.studies.confidence.semantic import clusters, discrete_semantic_entropy, semantic_entropy, sequence_entropy

METRICS = {
    "token": np.array([4, 5, 6, 7]),
    "logprob": np.array([-1.0, -0.5, -2.0, 0.0]),
    "entropy": np.array([0.5, 2.0, 1.5, 0.0]),
    "varentropy": np.array([0.25, 1.0, 0.25, 0.0]),
    "top1_prob": np.array([0.7, 0.3, 0.4, 1.0]),
}


def test_an_answer_by_hand():
    """Surprisals 1, ½, 2, 0 less entropies are ½, −3/2, ½, 0; in standard deviations 1, −3/2, 1, 0 of a sure step."""
    found = baselines(METRICS)
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
    assert found == pytest.approx(expected)
    np.testing.assert_allclose(surprise_z(METRICS), [1.0, -1.5, 1.0, 0.0])


def test_one_token_and_no_output():
    one = baselines({name: values[:1] for name, values in METRICS.items()})
    assert one["entropy_change"] == one["entropy_rise"] == one["spike_run"] == 0
    assert baselines({"token": np.arange(3)}) == {"length": 3}


def test_sets_of_equal_answers():
    of = clusters(["Paris.", "the paris", "Rome", "PARIS", "Lyon", "Rome!"])
    np.testing.assert_array_equal(of, [0, 0, 1, 0, 2, 1])
    expected = -sum(p * np.log(p) for p in (3 / 6, 2 / 6, 1 / 6))
    assert discrete_semantic_entropy(of) == pytest.approx(expected)
    np.testing.assert_array_equal(clusters(["3 apples", "3 pears"], lambda a, b: a[0] == b[0]), [0, 0])


def test_sets_are_weighted_by_their_probabilities():
    """Sets of probability 0.2 + 0.1 and 0.1: shares 3/4 and 1/4."""
    of, logprobs = np.array([0, 1, 0]), np.log([0.2, 0.1, 0.1])
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert semantic_entropy(logprobs, of) == pytest.approx(expected)
    assert semantic_entropy(logprobs - 2000, of) == pytest.approx(expected)
    assert sequence_entropy(logprobs) == pytest.approx(-np.log([0.2, 0.1, 0.1]).mean())


def test_samples():
    found = sample_baselines([("A", -1.0), ("a", -1.0), ("b", -1.0)])
    assert found["answer_sets"] == 2
    assert found["semantic_entropy"] == pytest.approx(found["discrete_semantic_entropy"])
    assert sample_baselines([("A", -1.0)]) == {}
    assert found.keys() | baselines(METRICS).keys() == TEXTS.keys()
