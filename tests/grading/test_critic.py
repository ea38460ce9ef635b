"""The critic of worked solutions, and the steps of its quotes."""

import json
from dataclasses import replace

import pytest

from jaxtrace.grading.alignment import steps_of_quote
from jaxtrace.grading.chat import Chat
from jaxtrace.grading.critic import criticize_answers
from jaxtrace.grading.labels import label_of
from tests.grading.rows import answer
from tests.grading.server import data_of, serving

PIECES = ["2 +", " 2 =", " 5", ". So", "\n", "5 +", " 1", " =", " 6."]
PROBLEM = {"solution": "2 + 2 = 4, and 4 + 1 = 5", "answer": "5"}


@pytest.mark.parametrize(
    ("quote", "steps"),
    [
        ("2 + 2 = 5", (0, 2)),
        ("2 + 2 = 5. So 5", (0, 5)),
        ("+ 2", (0, 1)),
        ("So  5 + 1", (3, 6)),
        ("6.", (8, 8)),
        ("5", None),
        ("2 + 2 = 6", None),
        (" ", None),
        ("", None),
        ("(.*)", None),
    ],
)
@pytest.mark.parametrize("ahead", [0, 3])
def test_steps_of_a_quote(quote, steps, ahead):
    assert steps_of_quote(quote, answer(PIECES, PROBLEM, ahead=ahead)) == steps


def test_a_character_of_several_tokens_covers_their_steps():
    assert steps_of_quote("né", answer(["n", "", "é", "e"], {})) == (0, 2)


def test_steps_of_every_passage():
    row = answer(PIECES, PROBLEM)
    owner = [step for step, piece in enumerate(PIECES) for _ in piece]
    for start in range(len(row.text)):
        for end in range(start + 1, len(row.text) + 1):
            quote = row.text[start:end]
            if quote.strip() == quote and row.text.count(quote) == 1 and "\n" not in quote:
                assert steps_of_quote(quote, row) == (owner[start], owner[end - 1])


def criticize(reply, row, cache):
    with serving(reply) as api, Chat(api.url, "tiny", cache, retries=0) as chat:
        return criticize_answers([row], [label_of(row)], chat)[0], api.requests


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_quoted_mistake_becomes_steps(tmp_path, ahead):
    row = answer(PIECES, PROBLEM, text="Which sum?", ahead=ahead)
    label, requests = criticize(lambda _: json.dumps({"quote": "2 = 5"}), row, tmp_path)
    assert (label.wrong_from, label.wrong_to, label.wrong_by) == (1, 2, "critic tiny")
    assert data_of(requests[0]) == {"problem": "Which sum?", "reference": PROBLEM["solution"], "solution": row.text}


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ('{"quote": null}', "no wrong step found"),
        ('{"quote": "2 + 2 = 6"}', "a quote that is not in the answer exactly once"),
        ('{"quote": "5"}', "a quote that is not in the answer exactly once"),
        ('{"place": 1}', "a reply that does not fit the schema"),
    ],
)
def test_an_unusable_quote_gives_no_steps(tmp_path, reply, why):
    label, _ = criticize(lambda _: reply, answer(PIECES, PROBLEM), tmp_path)
    assert (label.wrong_from, label.wrong_to, label.wrong_by) == (None, None, f"critic tiny: {why}")


def test_only_wrong_answers_with_a_solution_are_sent(tmp_path):
    broken = replace(answer(["#### 6"], PROBLEM), stop="not_finite")
    for row in (answer(["#### 5"], PROBLEM), answer(["no"], {"answer": "yes"}), broken):
        label, requests = criticize(lambda _: "null", row, tmp_path)
        assert label == label_of(row) and not requests


def test_the_critic_reads_the_answer_without_its_thought(tmp_path):
    thought = ["<think>", "2 + 2 = 5", "</think>"]
    label, requests = criticize(
        lambda _: json.dumps({"quote": "2 = 5"}), answer([*thought, *PIECES], PROBLEM), tmp_path
    )
    assert (label.wrong_from, label.wrong_to) == (4, 5)
    assert data_of(requests[0])["solution"] == "".join(PIECES)
