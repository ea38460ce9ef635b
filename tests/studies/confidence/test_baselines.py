"""Uncertainty scores of an answer by hand, and of several answers to one prompt."""

import pytest

from jaxtrace.estimators import estimate
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


def test_samples_of_a_prompt_have_their_own_baselines():
    scores = sample_baselines([("A", -1.0), ("a", -1.0), ("b", -1.0)])
    assert scores["answer_sets"] == 2 and scores["sequence_entropy"] == 1
    assert scores["semantic_entropy"] == pytest.approx(scores["discrete_semantic_entropy"])
    assert sample_baselines([("A", -1.0)]) == {}
    assert {*scores, *ANSWER_SCORES} == {*BASELINE_TEXTS}
