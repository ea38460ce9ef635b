"""Estimators are registered by a decorator, and say what a trace lacks."""

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.errors import ConfigError, StudyError


@pytest.fixture(scope="module")
def trace():
    return jt.load("demo").generate(["Once upon a time"], max_new_tokens=4, probes=jt.Probes.of("output"))


def test_scores_of_tokens_are_reduced_to_scores_of_answers(trace):
    surprisal = -trace.rows[0].metrics["logprob"].astype(float)
    scores = jt.estimators.perplexity(trace)
    np.testing.assert_array_equal(scores.tokens[0], surprisal)
    np.testing.assert_allclose(scores.answers, [surprisal.mean()])
    np.testing.assert_allclose(jt.estimators.maximum_sequence_probability(trace).answers, [surprisal.sum()])


def test_missing_metrics_are_named_with_the_option_that_records_them():
    silent = jt.load("demo").generate(["Once"], max_new_tokens=2, probes=jt.Probes.none())
    with pytest.raises(StudyError, match=r"perplexity: has no logprob; .*--probes that include output"):
        jt.estimators.perplexity(silent)


def test_a_name_cannot_be_taken_twice():
    def perplexity(trace: jt.Trace) -> jt.estimators.Scores:
        return jt.estimators.Scores(np.zeros(len(trace.rows)))

    with pytest.raises(ConfigError, match="are both named 'perplexity'; rename one"):
        jt.estimators.estimator(formula="0", source="none")(perplexity)
    assert jt.estimators.known_estimators()["perplexity"].formula == "−mean ln p[token]"
