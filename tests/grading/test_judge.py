"""The judge of short answers."""

import json
from dataclasses import replace

import pytest

from jaxtrace.grading.chat import Chat
from jaxtrace.grading.judge import judge_answers
from jaxtrace.grading.labels import label_of
from jaxtrace.grading.strings import Grade
from tests.grading.rows import answer
from tests.grading.server import data_of, serving

TRUTHFUL = {"correct_answers": ["No", "Never"], "incorrect_answers": ["Yes"]}
CELLS = {"correct_answers": "No; Never;", "incorrect_answers": "Yes"}
ROWS = [
    answer(["Su", "geno"], {"answer": "Michio Sugeno"}, id="short"),
    answer(["no, ", "never"], TRUTHFUL, id="truthful"),
    answer([" B"], {"choices": ["w", "x", "y", "z"], "answer": "B"}, id="letter"),
    answer(["#### 7"], {"solution": "…", "answer": "7"}, id="number"),
    answer([" Dorn."], {"stated": 3, "answer": "Dorn"}, id="fact"),
    answer(["Roses"], {}, id="poem"),
    replace(answer(["Sugeno"], {"answer": "Michio Sugeno"}, id="broken"), stop="not_finite"),
]


def grades(reply, cache, rows=ROWS):
    with serving(reply) as api, Chat(api.url, "tiny", cache, retries=0) as chat:
        return judge_answers(rows, [label_of(row) for row in rows], chat), api.requests


@pytest.mark.parametrize("grade", ["correct", "incorrect", "not_attempted"])
def test_the_judge_grades_answers_in_words_only(tmp_path, grade):
    labels, requests = grades(lambda _: json.dumps({"grade": grade}), tmp_path)
    sent = sorted((data_of(request) for request in requests), key=lambda data: data["answer"])
    assert sent == [
        {"question": "Who?", "reference": "Michio Sugeno", "answer": "Sugeno"},
        {"question": "Who?", "reference": "No; or: Never", "wrong": "Yes", "answer": "no, never"},
    ]
    assert [label.grade.value for label in labels] == [grade, grade, "correct", "correct", "correct", *["ungraded"] * 2]
    assert [label.by for label in labels][:3] == ["judge tiny", "judge tiny", "first letter"]
    assert labels[-1].by == "logits not finite"


def test_cells_of_a_csv_file_are_sent_as_lists(tmp_path):
    _, lists = grades(lambda _: "null", tmp_path / "lists", [answer(["no, never"], TRUTHFUL)])
    _, cells = grades(lambda _: "null", tmp_path / "cells", [answer(["no, never"], CELLS)])
    assert data_of(cells[0]) == data_of(lists[0]) and data_of(cells[0])["reference"] == "No; or: Never"


def test_an_invalid_reply_leaves_the_answer_ungraded(tmp_path):
    labels, _ = grades(lambda _: "It is correct, I guess", tmp_path)
    assert [label.grade for label in labels[:2]] == [Grade.UNGRADED] * 2
    assert labels[0].by == "judge tiny: a reply that does not fit the schema"
    assert labels[2:] == [label_of(row) for row in ROWS[2:]]


def test_the_judge_reads_the_answer_without_its_thought(tmp_path):
    rows = [
        answer(["<think>Sugeno?</think>", "Sato"], {"answer": "Sugeno"}),
        answer(["<think>Sug"], {"answer": "Sugeno"}),
    ]
    labels, requests = grades(lambda _: json.dumps({"grade": "incorrect"}), tmp_path, rows)
    assert [data_of(request)["answer"] for request in requests] == ["Sato"]
    assert [label.by for label in labels] == ["judge tiny", "thought not closed"]
