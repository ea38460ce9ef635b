"""`jaxtrace grade` and `jaxtrace study patterns` as commands."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.cli.conftest import jaxtrace  # noqa: F401 (a fixture)
from tests.figures.traces import row, trace
from tests.grading.conftest import no_proxy  # noqa: F401 (a fixture)
from tests.grading.server import data_of, serving

ANSWERS = {True: [" 2", " +", " 2", " =", " 4", " ####", " 4"], False: [" 2", " +", " 2", " =", " 5", " ####", " 5"]}


def saved(directory, groups=("output", "attention"), mode="generate"):
    """Store a trace of right and wrong answers to problems."""
    rows = []
    for i in range(8):
        meta = {"solution": "2 + 2 = 4", "answer": "4", "seen": "ab"[i // 4]}
        sizes = {"layers": 2, "heads": 2, "groups": groups}
        rows.append(row(np.random.default_rng(i), ANSWERS[i % 2 == 0], id=f"p-{i}", ids=[i] * 4, meta=meta, **sizes))
    trace(rows, mode, layers=2, heads=2).save(directory)
    return directory


@pytest.mark.slow
def test_a_trace_is_graded_criticised_and_studied(jaxtrace, tmp_path):  # noqa: F811
    run, labels, out = saved(tmp_path / "run"), tmp_path / "labels.jsonl", tmp_path / "study"
    with serving(lambda _: json.dumps({"quote": "= 5"})) as api:
        grade = ("grade", run, "--out", labels, "--judge-url", api.url, "--critic-model", "tiny")
        done = jaxtrace(*grade)
        assert done.status == 0, done.err
        assert len(api.requests) == 1  # the same wrong answer four times
        assert data_of(api.requests[0])["solution"] == " 2 + 2 = 5 #### 5"
        assert jaxtrace(*grade, "--overwrite").status == 0 and len(api.requests) == 1
    assert "number after ####" in done.out and "critic tiny" in done.out
    stored = [json.loads(line) for line in labels.read_text().splitlines()]
    assert [one["grade"] for one in stored] == ["correct", "incorrect"] * 4
    assert [(one["wrong_from"], one["wrong_to"]) for one in stored] == [(None, None), (3, 4)] * 4

    done = jaxtrace(
        "study", "patterns", run, "--by", "wrong_step", "--labels", labels, "--resamples", 100, "--out", out
    )
    assert done.status == 0, done.err
    assert {path.name for path in out.iterdir()} == {"tables", "study.html", "around.png"}
    assert (pd.read_csv(out / "tables" / "wrong_steps.csv")["n"] == 4).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--judge-url", "http://localhost:1/v1"), "--judge-url needs --judge-model or --critic-model"),
        (("--judge-model", "tiny"), "--judge-url needs --judge-model or --critic-model"),
        (("--judge-url", "localhost", "--judge-model", "tiny"), "localhost: not the URL of a chat API"),
    ],
)
def test_an_incomplete_judge_is_refused(jaxtrace, tmp_path, arguments, words):  # noqa: F811
    refused(jaxtrace, words, "grade", saved(tmp_path / "run"), "--out", tmp_path / "labels.jsonl", *arguments)
    assert not (tmp_path / "labels.jsonl").exists()


def test_unusable_input_is_refused_in_one_line(jaxtrace, tmp_path):  # noqa: F811
    labels, out = tmp_path / "labels.jsonl", ("--out", tmp_path / "out")
    scored = saved(tmp_path / "scored", mode="score")
    refused(jaxtrace, "a trace of given text", "grade", scored, "--out", labels)
    plain = saved(tmp_path / "plain", groups=("output",))
    refused(jaxtrace, "with --probes that include attention", "study", "patterns", plain, "--by", "seen", *out)
    refused(jaxtrace, "no prompt and no run has 'condition'", "study", "patterns", plain, *out)
    refused(
        jaxtrace, "labels.jsonl: No such file", "study", "patterns", plain, "--by", "grade", "--labels", labels, *out
    )
    refused(jaxtrace, "resamples", "study", "patterns", plain, "--resamples", 1, *out)
    refused(jaxtrace, "give traces to study, or models to trace", "study", "patterns", *out)


def refused(call, words, *arguments):
    done = call(*arguments)
    assert done.status == 2, done.out + done.err
    assert done.err.startswith("jaxtrace: ") and done.err.count("\n") == 1 and words in done.err, done.err
