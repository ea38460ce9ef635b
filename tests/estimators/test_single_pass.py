"""Estimators of one pass against their definitions in float64."""

import dataclasses
import math

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.errors import LackingError
from jaxtrace.estimators import known_estimators
from jaxtrace.estimators.probability import surprise_z
from tests.estimators.answers import LAYERS, VOCAB, random_answer, row_of, trace_of

ONE_PASS = [
    name
    for name, each in known_estimators().items()
    if each.compute.__module__.rpartition(".")[2] in ("attention", "divergence", "entropy", "probability")
]


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(0)
    return [random_answer(rng, steps) for steps in (1, 2, 7)]


@pytest.fixture(scope="module")
def trace(answers):
    return trace_of([row_of(*answer) for answer in answers])


def tempered_root_sum(logs):
    """Return Σ √q [steps] of the softmax at temperature 2."""
    q = np.exp(logs / 2)
    return np.sqrt(q / q.sum(1, keepdims=True)).sum(1)


def self_attention_score(logs, tokens, weights):
    return -sum(np.log(weights[t, LAYERS // 2, h] + 1e-12) for h in range(3) for t in range(1, len(tokens))) / 3


def rauq(confidences, weights, alpha):
    """Return RAUQ as its source writes it, layer by layer."""
    layers = range(math.floor(LAYERS / 3), math.ceil(2 * LAYERS / 3) + 1)
    scores = []
    for layer in layers:
        head = max(range(3), key=lambda h: sum(weights[1:, layer, h]))
        c = [confidences[0]]
        for t in range(1, len(confidences)):
            c.append(alpha * confidences[t] + (1 - alpha) * weights[t, layer, head] * c[-1])
        scores.append(1 - np.mean(np.log(c)))
    return max(scores)


def chosen(logs, tokens):
    return logs[np.arange(len(tokens)), tokens]


def entropies(logs):
    return -(np.exp(logs) * logs).sum(1)


ORACLES = {
    "maximum_sequence_probability": lambda logs, tokens, weights: -chosen(logs, tokens).sum(),
    "perplexity": lambda logs, tokens, weights: -chosen(logs, tokens).mean(),
    "length": lambda logs, tokens, weights: len(tokens),
    "mean_token_entropy": lambda logs, tokens, weights: entropies(logs).mean(),
    "max_token_entropy": lambda logs, tokens, weights: entropies(logs).max(),
    "self_certainty": lambda logs, tokens, weights: (logs.mean(1) + np.log(VOCAB)).mean(),
    "fisher_rao": lambda logs, tokens, weights: np.mean(
        2 / np.pi * np.arccos(np.sqrt(np.exp(logs)) @ np.full(VOCAB, VOCAB**-0.5))
    ),
    "fisher_rao_t2": lambda logs, tokens, weights: np.mean(
        2 / np.pi * np.arccos(tempered_root_sum(logs) / np.sqrt(VOCAB))
    ),
    "renyi_neg": lambda logs, tokens, weights: np.mean(np.log(VOCAB) - 2 * np.log(np.exp(logs / 2).sum(1))),
    "renyi_neg_t2": lambda logs, tokens, weights: np.mean(-2 * np.log(tempered_root_sum(logs)) - np.log(VOCAB)),
    "attention_score_gen_only": self_attention_score,
    "rauq": lambda logs, tokens, weights: rauq(np.exp(chosen(logs, tokens)), weights, 0.2),
    "rauq_entropy": lambda logs, tokens, weights: rauq(np.log(VOCAB) - entropies(logs) + 1e-10, weights, 0.8),
}


@pytest.mark.parametrize("name", ORACLES)
def test_scores_follow_their_definitions(name, answers, trace):
    expected = [ORACLES[name](*answer) for answer in answers]
    np.testing.assert_allclose(known_estimators()[name].scores(trace, {}).answers, expected, rtol=2e-6, atol=1e-7)


def test_statistics_of_entropy_by_hand(answers):
    """Surprisals 1, ½, 2, 0 minus entropies are ½, −3/2, ½, 0; as z-scores 1, −3/2, 1 and 0 without spread."""
    metrics = {
        "token": np.array([4, 5, 6, 7]),
        "logprob": np.array([-1.0, -0.5, -2.0, 0.0]),
        "entropy": np.array([0.5, 2.0, 1.5, 0.0]),
        "varentropy": np.array([0.25, 1.0, 0.25, 0.0]),
        "top1_prob": np.array([0.75, 0.25, 0.5, 1.0]),
    }
    row = row_of(*answers[0])
    by_hand = {
        "first_entropy": (0.5, 0.5),
        "p90_entropy": (np.quantile([0.5, 2.0, 1.5, 0.0], 0.9), 0.5),
        "mean_varentropy": (0.375, 0.25),
        "max_varentropy": (1.0, 0.25),
        "mean_surprise_z": (0.125, 1.0),
        "max_surprise_z": (1.0, 1.0),
        "surprisal_gap": (-0.125, 0.5),
        "least_top1_prob": (0.75, 0.25),
        "entropy_change": (3.5 / 3, 0.0),
        "entropy_rise": (1.5, 0.0),
        "spikes": (0.5, 0.0),
        "spike_run": (2, 0),
    }
    lone = {name: values[:1] for name, values in metrics.items()}
    trace = trace_of([dataclasses.replace(row, metrics=each) for each in (metrics, lone)])
    for name, expected in by_hand.items():
        np.testing.assert_allclose(known_estimators()[name].scores(trace, {}).answers, expected, err_msg=name)
    np.testing.assert_allclose(surprise_z(metrics), [1.0, -1.5, 1.0, 0.0])
    assert {*by_hand, *ORACLES} >= {*ONE_PASS}


@pytest.mark.parametrize("name", ONE_PASS)
def test_steps_of_the_prompt_and_steps_that_draw_nothing_do_not_count(name, answers, trace):
    estimator = known_estimators()[name]
    logs, tokens, weights = answers[2]
    ahead = row_of(logs, tokens, weights, prompt_steps=2)
    stopped = row_of(np.vstack([logs, logs[:1]]), np.append(tokens, -1), np.vstack([weights, weights[:1]]))
    stopped.metrics["entropy"][-1] = np.nan
    silent = row_of(logs[:1], np.array([-1]), weights[:1])
    answered = estimator.scores(trace, {}).answers[2]
    scores = estimator.scores(trace_of([ahead, stopped, silent]), {}).answers
    np.testing.assert_array_equal(scores, [answered, answered, np.nan])


def test_layers_without_attention_are_skipped(answers):
    """Layers 4 and 3 of 6 have no attention: RAUQ is of layers 5 (from 1) and the score of the nearest, layer 5."""
    logs, tokens, weights = answers[2]
    hybrid = weights.copy()
    hybrid[:, [2, 3]] = np.nan
    trace = trace_of([row_of(logs, tokens, hybrid)])
    p = np.exp(chosen(logs, tokens))
    same = weights.copy()
    same[:, [2, 3]] = weights[:, [4]]
    np.testing.assert_allclose(jt.estimators.rauq(trace).answers[0], rauq(p, same, 0.2), rtol=2e-6)
    score = jt.estimators.attention_score_gen_only(trace).answers[0]
    np.testing.assert_allclose(score, self_attention_score(logs, tokens, same), rtol=2e-6)
    empty = trace_of([row_of(logs, tokens, np.full_like(weights, np.nan))])
    assert np.isnan(jt.estimators.rauq(empty).answers[0])
    assert np.isnan(jt.estimators.attention_score_gen_only(empty).answers[0])


def test_alpha_of_rauq_is_an_option(trace, answers):
    expected = [rauq(np.exp(chosen(logs, tokens)), weights, 0.5) for logs, tokens, weights in answers[:2]]
    np.testing.assert_allclose(jt.estimators.rauq(trace, alpha=0.5).answers[:2], expected, rtol=2e-6)


def test_what_is_not_recorded_is_named_with_its_option(trace):
    few = dataclasses.replace(trace, info=trace.info | {"alphas": [9.0, 0.5, 2.0]})
    with pytest.raises(LackingError, match=r"fisher_rao_t2: .* order 0.25; .*--alphas 0.25,0.5,2,9"):
        jt.estimators.fisher_rao_t2(few)
    older = dataclasses.replace(trace, info={name: x for name, x in trace.info.items() if name != "vocab_size"})
    with pytest.raises(LackingError, match="rauq_entropy: has no size of the vocabulary"):
        jt.estimators.rauq_entropy(older)
    sparse = dataclasses.replace(trace, info=trace.info | {"layer_stride": 2})
    with pytest.raises(LackingError, match=r"rauq: needs every layer from 3 to 5; trace it again with --layer-stride"):
        jt.estimators.rauq(sparse)
