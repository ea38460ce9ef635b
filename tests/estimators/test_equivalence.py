"""Comparison of answers: built in, a user's function, a model of entailment, a judge."""

import json

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.errors import StudyError
from jaxtrace.estimators import AnswerPair, Comparer
from jaxtrace.estimators.equivalence import are_equivalent, compare_answers, match, rouge_l
from jaxtrace.estimators.equivalence_judge import EquivalenceJudge
from jaxtrace.grading.chat import Chat
from tests.estimators.samples import sample, trace_of
from tests.grading.server import data_of, serving

TRACE = trace_of([sample([text], [-1], prompt="Capital?") for text in ("Paris", "It is Paris", "Paris", "Lyon")])


def test_a_match_ignores_case_accents_punctuation_and_articles():
    assert match("The Café.", "cafe") and match("", "…")
    assert not match("Paris", "Lyon") and not match("3 apples", "3 pears")


def test_rouge_l_is_twice_the_common_subsequence_over_both_lengths():
    assert rouge_l("the cat sat on a mat", "The cat lay on the mat!") == pytest.approx(2 * 4 / 12)
    assert rouge_l("running has", "runs ha") == pytest.approx(1 / 2)  # stems, of words longer than 3 letters
    assert rouge_l("Москва река", "москва") == pytest.approx(2 / 3)
    assert rouge_l("!", "") == 1 and rouge_l("one", "") == 0


def test_entailment_must_be_likeliest_in_both_directions():
    table = {("a", "b"): (0.6, 0.3, 0.1), ("b", "a"): (0.4, 0.5, 0.1), ("a", "c"): (0.5, 0.3, 0.2)}
    table["c", "a"] = (0.9, 0.1, 0)

    def nli(premise, hypothesis):
        return table.get((premise, hypothesis), (float(premise == hypothesis), 0, float(premise != hypothesis)))

    (values,) = compare_answers([("Q", ["a", "b", "c"])], Comparer(nli), "test")
    np.testing.assert_array_equal(values[0, 1], [0.6, 0.3, 0.1])
    np.testing.assert_array_equal(are_equivalent(values), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])


def test_a_function_is_called_once_for_each_pair_of_texts_by_all_estimators():
    calls = []

    def similar(first, second):
        calls.append((first, second))
        return float(first == second)

    comparer = Comparer(similar)
    for name in ("deg_mat", "eig_val_laplacian", "semantic_density", "kernel_language_entropy"):
        getattr(jt.estimators, name)(TRACE, similarity=comparer)
    jt.estimators.semantic_entropy(TRACE, equivalence=comparer)
    assert len(calls) == len(set(calls)) == comparer.calls == 9  # of three distinct texts


def test_estimators_of_one_table_share_a_function():
    calls = []

    def same(first, second):
        calls.append((first, second))
        return first == second

    names = ["num_sem_sets", "semantic_entropy", "deg_mat", "cocoa_msp"]
    jt.estimators.estimate(TRACE, names, equivalence=same, similarity=same)
    assert len(calls) == len(set(calls)) == 9


def test_a_batch_comparison_gets_all_pairs_with_their_prompt_at_once():
    batches = []

    class Model:
        def compare_all(self, pairs):
            batches.append(list(pairs))
            return [pair.first == pair.second for pair in pairs]

    sets = jt.estimators.num_sem_sets(TRACE, equivalence=Model())
    np.testing.assert_array_equal(sets.answers, [3] * 4)
    assert len(batches) == 1 and len(batches[0]) == 9
    assert AnswerPair("Capital?", "Paris", "Lyon") in batches[0]


def test_an_undecided_pair_leaves_its_prompt_without_a_score():
    rows = [*TRACE.rows, sample(["One"], [-1]), sample(["Two"], [-1])]
    undecided = jt.estimators.num_sem_sets(trace_of(rows), equivalence=lambda a, b: None if "Lyon" in a else a == b)
    np.testing.assert_array_equal(undecided.answers, [np.nan] * 4 + [2] * 2)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (lambda *_: 1 / 0, "division by zero"),
        (lambda *_: 1.5, r"it returned 1.5, which is neither a truth value, a similarity from 0 to 1, nor three"),
        (lambda *_: float("nan"), "it returned nan"),
        (lambda *_: (0.5, 0.5), r"it returned \(0.5, 0.5\)"),
        (lambda *_: "yes", "could not convert"),
        (lambda: True, "takes 0 positional arguments"),
    ],
)
def test_a_comparison_that_fails_is_one_line_with_estimator_and_prompt(verdict, reason):
    with pytest.raises(StudyError, match=rf"^deg_mat: .* two answers to 'Capital\?' failed: .*{reason}.*function$"):
        jt.estimators.deg_mat(TRACE, similarity=verdict)


def test_a_batch_of_the_wrong_length_is_refused():
    class Model:
        def compare_all(self, pairs):
            return [True]

    with pytest.raises(StudyError, match="failed: it returned 1 verdicts on 9 pairs"):
        jt.estimators.deg_mat(TRACE, similarity=Model())


def test_a_comparison_is_named_by_module_and_function(tmp_path, monkeypatch):
    (tmp_path / "own_comparison.py").write_text("def first_letter(a, b):\n    return a[0] == b[0]\nnumber = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    sets = jt.estimators.num_sem_sets(TRACE, equivalence="own_comparison:first_letter")
    np.testing.assert_array_equal(sets.answers, [3] * 4)
    with pytest.raises(StudyError, match="own_comparison:number: is not a function; give match, rouge-l"):
        Comparer("own_comparison:number")
    with pytest.raises(StudyError, match=r"own_comparison:absent: cannot be imported .*PYTHONPATH"):
        Comparer("own_comparison:absent")
    with pytest.raises(StudyError, match="rogue: is no comparison of answers; give match, rouge-l, or module:function"):
        Comparer("rogue")


def test_a_judge_is_asked_once_for_each_pair_of_different_answers(tmp_path):
    asked = []

    def reply(request):
        asked.append(data_of(request))
        return json.dumps({"same": "Lyon" not in (asked[-1]["first"], asked[-1]["second"])})

    with serving(reply) as api, Chat(api.url, "tiny", tmp_path, retries=0) as chat:
        for _ in range(2):  # stored replies are read again
            sets = jt.estimators.num_sem_sets(TRACE, equivalence=EquivalenceJudge(chat))
            np.testing.assert_array_equal(sets.answers, [2] * 4)
    assert sorted((each["first"], each["second"]) for each in asked) == [
        ("It is Paris", "Lyon"),
        ("It is Paris", "Paris"),
        ("Lyon", "Paris"),
    ]
    assert {each["question"] for each in asked} == {"Capital?"}


def test_a_judge_without_a_valid_reply_decides_nothing(tmp_path):
    with serving(lambda _: '{"same": "perhaps"}') as api, Chat(api.url, "tiny", tmp_path, retries=0) as chat:
        sets = jt.estimators.num_sem_sets(TRACE, equivalence=EquivalenceJudge(chat))
    assert np.isnan(sets.answers).all()
