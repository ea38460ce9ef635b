"""Tables of scores: which estimators they have, which answers, and what is lacking."""

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.errors import ConfigError, LackingError, StudyError
from jaxtrace.estimators import Scores, estimate, estimator
from jaxtrace.estimators.registry import ESTIMATORS
from jaxtrace.grading.labels import digest
from jaxtrace.traces.writer import TraceWriter
from tests.estimators.answers import random_answer, row_of, trace_of


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def registered(monkeypatch):
    """Estimators registered in a test are forgotten after it."""
    for part in ("_objects", "_origins"):
        monkeypatch.setattr(ESTIMATORS, part, dict(vars(ESTIMATORS)[part]))


def answered(rng, prompts, **about):
    return trace_of([row_of(*random_answer(rng, 3), prompt=prompt, **about) for prompt in prompts])


def test_a_row_names_its_answer_and_its_prompt(rng):
    trace = answered(rng, ["a", "b", "a"], text="Lima")
    table = estimate(trace, ["perplexity", "length"])
    assert [*table.columns] == ["run", "row", "prompt", "group", "completion", "tokens", "perplexity", "length"]
    assert table[["run", "row", "prompt", "group", "tokens"]].to_numpy().tolist() == [
        ["", 0, "a", 0, 3],
        ["", 1, "b", 1, 3],
        ["", 2, "a", 0, 3],
    ]
    assert {*table["completion"]} == {digest("Lima")}
    np.testing.assert_array_equal(table["perplexity"], jt.estimators.perplexity(trace).answers)


def test_all_skips_and_lists_what_lacks_something(rng, registered):
    @estimator(formula="0", passes="samples")
    def of_samples(trace):
        return Scores(np.zeros(len(trace.rows)))

    @estimator(formula="0")
    def of_labels(trace, *, labels, scale=1.0):
        return Scores(scale * labels)

    trace = answered(rng, ["a", "b"])
    for row in trace.rows:
        del row.metrics["self_certainty"]
    table = estimate(trace)
    lacking = table.attrs["lacking"]
    assert {*lacking} >= {"of_samples", "of_labels", "self_certainty"}
    assert not {*lacking} & {*table.columns} and "perplexity" in table
    assert "--samples" in lacking["of_samples"] and "--labels" in lacking["of_labels"]
    for name in ("of_samples", "of_labels", "self_certainty"):
        with pytest.raises(LackingError, match=f"{name}: "):
            estimate(trace, [name])
    given = estimate(answered(rng, ["a", "a"]), ["of_samples", "of_labels"], labels=np.array([1.0, 0.0]), scale=3.0)
    assert given[["of_samples", "of_labels"]].to_numpy().tolist() == [[0, 3], [0, 0]]


def test_an_estimator_sees_only_the_metrics_that_are_declared(rng, registered):
    seen = []

    @estimator(formula="0", metrics=("entropy",))
    def watching(trace):
        seen.extend({*row.metrics} for row in trace.rows)
        return Scores(np.zeros(len(trace.rows)))

    estimate(answered(rng, ["a"]), "watching")
    assert seen == [{"token", "entropy"}]


def test_other_errors_of_an_estimator_end_all(rng, registered):
    @estimator(formula="0")
    def failing(trace):
        raise StudyError("the judge gave no answer")

    with pytest.raises(StudyError, match="the judge gave no answer"):
        estimate(answered(rng, ["a"]))


def test_runs_of_a_dataset_are_scored_one_by_one(rng, registered, tmp_path):
    for name, layers in (("model=a", 6), ("model=b", 3)):
        rows = [row_of(*random_answer(rng, 3), prompt=prompt) for prompt in ("a", "b")]
        for row in rows:
            row.metrics["attention_self"] = row.metrics["attention_self"][:, :layers]
        with TraceWriter(tmp_path, trace_of(rows, layers=layers).info, partition=name) as writer:
            writer.write([*enumerate(rows)])

    @estimator(formula="0")
    def of_labels(trace, *, labels):
        return Scores(labels)

    dataset = jt.open(tmp_path)
    table = estimate(dataset, ["rauq", "of_labels"], labels=np.arange(4.0))
    assert table["run"].tolist() == ["model=a"] * 2 + ["model=b"] * 2
    assert table["row"].tolist() == table["of_labels"].tolist() == [0, 1, 2, 3]
    assert table["group"].tolist() == [0, 1, 0, 1]  # intervals are over prompts, not over their runs
    assert np.isfinite(table["rauq"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trace: trace_of([]), "the trace: has no finished prompt"),
        (lambda trace: trace_of(trace.rows, mode="score"), "the trace: is a trace of given text"),
    ],
)
def test_traces_without_answers_are_refused(rng, change, message):
    with pytest.raises(StudyError, match=message):
        estimate(change(answered(rng, ["a"])))


def test_an_estimator_has_a_free_name_and_a_score_for_each_row(rng, registered):
    def tokens(trace):
        return Scores(np.zeros(len(trace.rows)))

    with pytest.raises(ConfigError, match="'tokens' is a column of every table of scores; rename the estimator"):
        estimator(formula="0")(tokens)

    @estimator(formula="0")
    def short(trace):
        return Scores(np.zeros(1))

    with pytest.raises(ConfigError, match=r"short: gave scores of shape \(1,\) for 2 answers"):
        estimate(answered(rng, ["a", "b"]), "short")


def test_an_unknown_name_is_refused_with_the_nearest(rng):
    with pytest.raises(ConfigError, match=r"no estimator 'perplexty'; did you mean 'perplexity'\? there are: "):
        estimate(answered(rng, ["a"]), ["length", "perplexty"])


@pytest.mark.parametrize("result", [None, np.zeros(1), "a", Scores(np.array(["a"]))])
def test_an_estimator_of_a_user_that_fails_is_one_line(rng, registered, result):
    @estimator(formula="0")
    def odd(trace):
        return result

    @estimator(formula="0")
    def failing(trace):
        return Scores(np.zeros(1 // len(trace.rows[0].text)))

    for name in ("odd", "failing"):
        with pytest.raises(ConfigError, match=rf"^{name}: (fails \(\w+: .*\); correct the|returns a .*; return)"):
            estimate(answered(rng, ["a"]), name)


def test_no_names_and_labels_of_other_answers_are_refused(rng):
    with pytest.raises(ConfigError, match="no estimators; name some, or give all"):
        estimate(answered(rng, ["a"]), [])
    with pytest.raises(StudyError, match="3 labels for 1 answers"):
        estimate(answered(rng, ["a"]), ["length"], labels=[1, 0, 1])


def test_what_one_run_of_a_dataset_lacks_is_named_with_the_run(rng, tmp_path):
    for name, orders in (("seed=1", [0.5]), ("seed=2", [2.0])):
        row = row_of(*random_answer(rng, 3))
        row.metrics["renyi"] = row.metrics["renyi"][:, :1]
        with TraceWriter(tmp_path, trace_of([row], alphas=orders).info, partition=name) as writer:
            writer.write([(0, row)])
    table = estimate(jt.open(tmp_path))
    assert np.isfinite(table["renyi_neg"]).tolist() == [True, False]
    assert table.attrs["lacking"]["renyi_neg"].endswith("(run seed=2)")
    assert "run" not in table.attrs["lacking"]["renyi_neg_t2"].split()
