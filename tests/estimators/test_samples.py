"""Estimators from several answers to each prompt of a trace."""

from dataclasses import replace

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.errors import StudyError
from jaxtrace.estimators import relevance
from jaxtrace.estimators.answers import answers_by_prompt
from tests.estimators.samples import sample, trace_of

SAMPLED = {
    name: each
    for name, each in jt.estimators.known_estimators().items()
    if each.compute.__module__ in ("jaxtrace.estimators.samples", "jaxtrace.estimators.relevance")
    and each.passes == "samples"
}
# Each estimator's score of equal answers; the others depend on probabilities, or are 0 times them.
EQUAL = {
    "semantic_entropy_normalized": 0,
    "discrete_semantic_entropy": 0,
    "num_sem_sets": 1,
    "eig_val_laplacian": 1,
    "deg_mat": 0,
    "eccentricity": 0,
    "lexical_similarity": -1,
    "cocoa_msp": 0,
    "cocoa_ppl": 0,
    "cocoa_mte": 0,
    "semantic_density": -1,
}
ROWS = [
    sample(["Par", "is"], [-1, -0.5]),
    sample(["Two"], [-0.25], prompt="1 + 1?"),
    sample(["Lyon", " is", " it"], [-2, -0.5, -0.25]),
    sample([" paris", ".", "<end>"], [-1.5, -0.25, -0.5], stop="stop_token"),
    sample(["Three", " two"], [-3, -0.25], prompt="1 + 1?"),
    sample(["The", " city", " of", " Paris"], [-1, -1, -0.5, -0.25]),
]
FIRST, SECOND = [0, 2, 3, 5], [1, 4]


def shared(name, *, rows=ROWS, **options):
    """Return the scores of both prompts, each of which its answers share."""
    scores = SAMPLED[name].compute(trace_of(rows), **options).answers
    assert (scores[FIRST] == scores[0]).all() and (scores[SECOND] == scores[1]).all()
    return scores[:2]


def test_entropies_of_a_prompt_are_of_its_own_answers():
    np.testing.assert_allclose(shared("monte_carlo_sequence_entropy"), [(1.5 + 2.75 + 2.25 + 2.75) / 4, 3.5 / 2])
    means = [(0.75 + 2.75 / 3 + 0.75 + 2.75 / 4) / 4, (0.25 + 1.625) / 2]
    np.testing.assert_allclose(shared("monte_carlo_normalized_sequence_entropy"), means)


def test_semantic_entropies_join_answers_of_equal_words():
    """The answers "Paris" and " paris." to the first prompt are one class."""
    p = np.exp([-1.5, -2.75, -2.25, -2.75])
    joint = p[0] + p[2]
    expected = -(2 * np.log(joint) + np.log(p[1]) + np.log(p[3])) / 4
    np.testing.assert_allclose(shared("semantic_entropy"), [expected, 3.5 / 2])
    np.testing.assert_allclose(shared("semantic_entropy_unique"), [expected, 3.5 / 2])  # the texts differ
    halves = -(0.5 * np.log(0.5) + 0.5 * np.log(0.25))
    np.testing.assert_allclose(shared("discrete_semantic_entropy"), [halves, np.log(2)])
    np.testing.assert_array_equal(shared("num_sem_sets"), [3, 2])
    any_paris = {"equivalence": lambda a, b: ("paris" in a.lower()) == ("paris" in b.lower())}
    np.testing.assert_array_equal(shared("num_sem_sets", **any_paris), [2, 1])
    q = np.exp([-0.75, -2.75 / 3, -0.75, -2.75 / 4])
    shares = np.array([q[0] + q[2] + q[3], q[1]]) / q.sum()
    expected = -(shares * np.log(shares)).sum()
    np.testing.assert_allclose(shared("semantic_entropy_normalized", **any_paris), [expected, 0], atol=1e-15)


def test_equal_texts_count_once_in_the_unique_form():
    trace = trace_of([sample(["A"], [-1]), sample(["A"], [-1]), sample(["a"], [-2])])
    twice, once = jt.estimators.semantic_entropy(trace), jt.estimators.semantic_entropy_unique(trace)
    np.testing.assert_allclose(twice.answers, -np.log(2 * np.exp(-1) + np.exp(-2)))
    np.testing.assert_allclose(once.answers, -np.log(np.exp(-1) + np.exp(-2)))


@pytest.mark.parametrize("name", SAMPLED)
def test_the_order_of_answers_does_not_matter(name, rng):
    order = rng.permutation(len(ROWS))
    scores = SAMPLED[name].compute(trace_of(ROWS)).answers
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(SAMPLED[name].compute(trace_of([ROWS[i] for i in order])).answers, scores[order])


@pytest.mark.parametrize(("name", "extreme"), EQUAL.items())
def test_equal_answers_have_the_least_uncertainty(name, extreme):
    equal = [sample(["So", " it", " is"], logprobs) for logprobs in ([-1, 0, 0], [-1, -2, 0], [-1, -1, -1])]
    scores = SAMPLED[name].compute(trace_of(equal)).answers
    np.testing.assert_allclose(scores, extreme, atol=1e-7)
    different = [sample([word], [-1]) for word in ("one", "two", "three")]
    assert (SAMPLED[name].compute(trace_of(different)).answers > scores).all()


def test_answers_are_compared_with_the_others_of_their_prompt():
    """Answers with the same first letter have similarity 1, others 0."""
    same = {"similarity": lambda a, b: a[:1] == b[:1]}
    rows = [sample([text], [-1 - i]) for i, text in enumerate(["a", "a", "ab", "c"])]
    trace = trace_of(rows)
    distances = np.array([1 / 3, 1 / 3, 1 / 3, 1])
    np.testing.assert_allclose(jt.estimators.cocoa_msp(trace, **same).answers, distances * [1, 2, 3, 4])
    np.testing.assert_allclose(jt.estimators.cocoa_ppl(trace, **same).answers, distances * [1, 2, 3, 4])
    np.testing.assert_allclose(jt.estimators.cocoa_mte(trace, **same).answers, distances * [2, 4, 6, 8])
    p = np.exp([-1, -2, -3, -4])
    densities = [
        (p[0] + p[1] + p[2]) / p.sum(),  # the other "a" counts
        (p[1] + p[0] + p[2]) / p.sum(),
        (p[2] + p[0]) / (p[2] + p[0] + p[3]),  # the first "a" of two
        p[3] / (p[3] + p[0] + p[2]),
    ]
    np.testing.assert_allclose(jt.estimators.semantic_density(trace, **same).answers, -np.array(densities))


def test_relevant_tokens_weigh_more():
    """The similarity without "Lyon" is 1/4, without another token 3/4; the token that ends the answer has no text."""
    trace = trace_of([sample(["Lyon", " is", " it", "<end>"], [-2, -0.5, -0.25, -4], stop="stop_token")])
    pairs = []

    def similarity(first, second):
        pairs.append((first, second))
        return 0.25 if "Lyon" not in second else 0.75

    scores = jt.estimators.token_sar(trace, similarity=similarity)
    weights = np.array([0.75, 0.25, 0.25, 0]) / 1.25
    np.testing.assert_allclose(scores.tokens[0], weights * [2, 0.5, 0.25, 4])
    np.testing.assert_allclose(scores.answers, [scores.tokens[0].sum()])
    full = "Who? Lyon is it"
    assert pairs == [(full, "Who?  is it"), (full, "Who? Lyon it"), (full, "Who? Lyon is")]


def test_sar_weighs_tokens_and_answers():
    trace = trace_of(ROWS)
    surprisals = jt.estimators.token_sar(trace).answers[SECOND]
    share = jt.estimators.lexical_similarity(trace).answers[1] / -0.001
    p = np.exp(-surprisals)
    expected = -np.log([p[0] + p[1] * share, p[1] + p[0] * share]).mean()
    assert shared("sar")[1] == pytest.approx(expected)
    p = np.exp([-0.25, -3.25])
    expected = -np.log([p[0] + p[1] * share, p[1] + p[0] * share]).mean()
    assert shared("sentence_sar")[1] == pytest.approx(expected)


def test_an_answer_without_another_one_has_no_score():
    trace = trace_of([*ROWS, sample(["Alone"], [-1], prompt="Lone?"), sample([], [])])
    for each in SAMPLED.values():
        scores = each.compute(trace).answers
        assert np.isfinite(scores[:-2]).all() and np.isnan(scores[-2:]).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_a_trace_without_samples_names_the_option_that_draws_them(name):
    with pytest.raises(StudyError, match=f"^{name}: has one answer to each prompt; trace it again with --samples"):
        SAMPLED[name].compute(trace_of(ROWS[:2]))
    with pytest.raises(StudyError, match=f"^{name}: is a trace of given text"):
        SAMPLED[name].compute(jt.Trace(ROWS, {"mode": "score"}))


def test_the_thought_of_an_answer_is_not_compared():
    thoughts = [sample([f"<think>{word}</think>", "42"], [-1, -1]) for word in ("six times seven", "a guess")]
    np.testing.assert_array_equal(jt.estimators.num_sem_sets(trace_of(thoughts)).answers, [1, 1])
    unfinished = [sample([f"<think>{word}"], [-1]) for word in ("six times", "a guess")]
    np.testing.assert_array_equal(jt.estimators.num_sem_sets(trace_of(unfinished)).answers, [2, 2])


def test_equal_texts_with_other_images_are_other_prompts():
    rows = [replace(row, prompt=replace(row.prompt, images=(f"{i // 2}.png",))) for i, row in enumerate([ROWS[0]] * 4)]
    assert [len(answers) for answers in answers_by_prompt(trace_of(rows))] == [2, 2]


def test_a_stop_string_is_no_part_of_the_answer_whose_tokens_are_weighed():
    row = replace(sample(["Lyon", " END", " it"], [-1, -2, -4], stop="stop_string"), text="Lyon")
    trace = trace_of([row])
    trace.info["stop"] = [" END"]
    tokens = jt.estimators.token_sar(trace, similarity=lambda first, second: 0.5).tokens[0]
    np.testing.assert_allclose(tokens, [1, 0, 0])


def test_tokens_are_compared_some_answers_at_a_time(monkeypatch):
    class Counting:
        def __init__(self):
            self.sizes = []

        def compare_all(self, pairs):
            self.sizes.append(len(pairs))
            return [0.5] * len(pairs)

    monkeypatch.setattr(relevance, "CHUNK", 2)
    whole, parts = jt.estimators.token_sar(trace_of(ROWS), similarity=lambda *_: 0.5), Counting()
    np.testing.assert_array_equal(jt.estimators.token_sar(trace_of(ROWS), similarity=parts).answers, whole.answers)
    assert len(parts.sizes) == len(ROWS) // 2
