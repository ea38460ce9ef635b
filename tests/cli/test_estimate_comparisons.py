"""`jaxtrace estimate` over samples: comparisons by name, by a user's function and by a judge."""

import json

import pandas as pd
import pytest

from tests.estimators.samples import sample, trace_of
from tests.grading.server import data_of, serving

TEXTS = ("Paris", "It is Paris", "Paris", "Lyon")


@pytest.fixture
def estimate(jaxtrace, tmp_path):
    trace_of([sample([text], [-1], prompt="Capital?") for text in TEXTS]).save(tmp_path / "trace")

    def call(estimators, *words, out="scores.csv"):
        return jaxtrace("estimate", tmp_path / "trace", "--estimators", estimators, "--out", tmp_path / out, *words)

    return call


def test_comparisons_are_chosen_by_name_or_function(estimate, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "def same(a, b):\n    return ('Paris' in a) == ('Paris' in b)\ndef fails(a, b):\n    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sets = {}
    for name in ("match", "rouge-l", "own:same"):
        assert estimate("num_sem_sets,deg_mat", "--equivalence", name, "--overwrite").status == 0
        sets[name] = pd.read_csv(tmp_path / "scores.csv")["num_sem_sets"].tolist()
    assert sets == {"match": [3] * 4, "rouge-l": [3] * 4, "own:same": [2] * 4}
    done = estimate("num_sem_sets,deg_mat", "--similarity", "own:same", "--overwrite")
    assert done.status == 0 and pd.read_csv(tmp_path / "scores.csv")["deg_mat"].tolist() == [0.375] * 4


def test_a_judge_compares_answers_and_its_replies_are_kept(estimate, tmp_path):
    def reply(request):
        data = data_of(request)
        return json.dumps({"same": "Lyon" not in (data["first"], data["second"])})

    with serving(reply) as api:
        judge = ("--equivalence", "judge", "--judge-url", api.url, "--judge-model", "tiny")
        for _ in range(2):
            assert estimate("num_sem_sets,discrete_semantic_entropy", *judge, "--overwrite").status == 0
    assert len(api.requests) == 3 and len([*(tmp_path / "scores.csv.cache").glob("*.json")]) == 3
    assert pd.read_csv(tmp_path / "scores.csv")["num_sem_sets"].tolist() == [2] * 4


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--equivalence", "own:fails"), "num_sem_sets: the comparison of two answers to 'Capital?' failed: division"),
        (("--equivalence", "own:absent"), "own:absent: cannot be imported ("),
        (("--equivalence", "rogue"), "rogue: is no comparison of answers; give match, rouge-l, or module:function"),
        (("--equivalence", "judge"), "--equivalence judge and --similarity judge need --judge-url and --judge-model"),
        (("--judge-model", "tiny"), "--equivalence judge and --similarity judge need --judge-url and --judge-model"),
        (("--equivalence", "judge", "--judge-url", "ftp://x", "--judge-model", "m"), "not the URL of a chat API"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_line(estimate, tmp_path, monkeypatch, words, line):
    (tmp_path / "own.py").write_text("def fails(a, b):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = estimate("num_sem_sets", *words)
    assert (done.status, done.out) == (2, "") and not (tmp_path / "scores.csv").exists()
    assert line in done.err.splitlines()[-1], done.err
