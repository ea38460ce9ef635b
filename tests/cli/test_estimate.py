"""`jaxtrace estimate`: scores, evaluation, and refusals in one line."""

import json

import numpy as np
import pandas as pd
import pytest

import jaxtrace as jt
from jaxtrace.estimators import Scores, estimator
from jaxtrace.estimators.registry import ESTIMATORS
from tests.estimators.answers import random_answer, row_of, trace_of


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A trace of twelve answers on disk, of which every other one is right."""
    rng, directory = np.random.default_rng(0), tmp_path_factory.mktemp("stored")
    rows = [
        row_of(*random_answer(rng, 4), prompt=f"q{i}", text="Lima" if i % 2 else "Rome", meta={"answer": "Lima"})
        for i in range(12)
    ]
    trace_of(rows, model="tiny", revision=None).save(directory / "trace")
    return directory / "trace"


@pytest.fixture
def estimate(jaxtrace, stored, tmp_path):
    def call(*words, trace=stored, out="scores.parquet"):
        return jaxtrace("estimate", trace, "--resamples", 20, "--out", tmp_path / out, *words)

    return call


def refused(done, *words):
    assert (done.status, done.out) == (2, ""), done.out + done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("jaxtrace: ") and all(word in line for word in words), done.err


def test_scores_and_their_evaluation_are_written(estimate, stored, tmp_path):
    done = estimate()
    assert done.status == 0, done.err
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    trace = jt.open(stored)
    expected = jt.estimators.estimate(trace)
    pd.testing.assert_frame_equal(scores, expected)
    measured = pd.read_csv(tmp_path / "scores.evaluation.csv")
    labels = np.arange(12) % 2
    again = jt.estimators.evaluate(expected, labels, resamples=20)
    pd.testing.assert_frame_equal(measured, again, check_dtype=False)
    assert measured["auroc"].is_monotonic_decreasing and {*measured["estimator"]} == {*scores.columns[6:]}
    shown = done.out[: done.out.index("scores.parquet")]
    assert "AUROC" in shown and {*measured["estimator"]} <= {*shown.split()}
    assert "not computed: " in done.out or not expected.attrs["lacking"]


def test_named_estimators_and_labels_of_prompts(estimate, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(["prompt,label\n", *(f"q{i},{i < 6}\n" for i in range(10))]))
    assert estimate("--estimators", "rauq, perplexity", "--labels", labels, out="s.csv").status == 0
    scores = pd.read_csv(tmp_path / "s.csv")
    assert [*scores.columns[6:]] == ["rauq", "perplexity"]
    measured = pd.read_csv(tmp_path / "s.evaluation.csv")
    assert measured[["n", "right"]].to_numpy().tolist() == [[10, 6]] * 2


def test_without_labels_there_are_scores_alone(estimate, rng, tmp_path):
    rows = [row_of(*random_answer(rng, 4), prompt=f"q{i}") for i in range(3)]
    trace_of(rows).save(tmp_path / "trace")
    (tmp_path / "scores.evaluation.csv").write_text("older")
    (tmp_path / "scores.parquet").write_text("older")
    before = estimate(trace=tmp_path / "trace")
    refused(before, "scores.parquet: exists already; replace it with --overwrite")
    done = estimate("--overwrite", trace=tmp_path / "trace")
    assert done.status == 0 and "AUROC" not in done.out
    assert not (tmp_path / "scores.evaluation.csv").exists()
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 3


def test_what_is_missing_is_named_in_one_line(estimate, rng, tmp_path, monkeypatch):
    for part in ("_objects", "_origins"):
        monkeypatch.setattr(ESTIMATORS, part, dict(vars(ESTIMATORS)[part]))

    @estimator(formula="0", passes="samples")
    def of_samples(trace):
        return Scores(np.zeros(len(trace.rows)))

    @estimator(formula="0", passes="two")
    def of_the_model(trace, *, model):
        return Scores(np.zeros(len(trace.rows)))

    row = row_of(*random_answer(rng, 4))
    del row.metrics["attention_self"]
    bare, scored, empty = (tmp_path / name for name in ("bare", "scored", "empty"))
    trace_of([row], model=str(tmp_path / "nowhere")).save(bare)
    trace_of([row], mode="score").save(scored)
    trace_of([]).save(empty)
    refused(
        estimate("--estimators", "rauq", trace=bare), "rauq: has no attention_self", "--probes that include attention"
    )
    refused(estimate("--estimators", "of_samples", trace=bare), "of_samples: has one answer to each", "--samples")
    refused(estimate("--estimators", "of_the_model", trace=bare), "nowhere")
    refused(estimate("--estimators", "perplexty", trace=bare), "no estimator 'perplexty'; did you mean 'perplexity'?")
    refused(estimate(trace=scored), f"{scored}: is a trace of given text")
    refused(estimate(trace=empty), f"{empty}: has no finished prompt")
    refused(estimate(trace=tmp_path), f"{tmp_path}: not a trace directory")
    assert not (tmp_path / "scores.parquet").exists()
    done = estimate(trace=bare)
    assert done.status == 0
    lines = " ".join(done.out.split())
    assert "not computed: attention_score_gen_only, rauq, rauq_entropy: has no attention_self; trace it again" in lines
    assert "of_samples: has one answer to each prompt" in lines and "of_the_model: needs model" in lines
    assert "no model for estimators: " in done.err


def test_labels_that_do_not_fit_are_refused_before_any_work(estimate, tmp_path):
    labels = tmp_path / "labels.jsonl"
    for lines, words in (
        ([{"prompt": "other", "label": True}], "no label of the traces' prompts; use their ids, such as q0, q1"),
        ([{"prompt": f"q{i}", "label": True} for i in range(12)], "all 12 labelled answers are right; give labels of"),
        ([{"prompt": "q0", "label": "perhaps"}], "line 1: not a label"),
        ([{"prompt": "q0", "completion": "0", "grade": "correct", "by": "x"}], "no label of the answer to q0"),
    ):
        labels.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        refused(estimate("--labels", labels), str(labels), words)
    assert not (tmp_path / "scores.parquet").exists()
