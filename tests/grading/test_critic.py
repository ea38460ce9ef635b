"""A critic of worked solutions, and where its quotes lie."""

import json
from dataclasses import replace

import pytest

from jaxtrace.grading.alignment import steps_of
from jaxtrace.grading.chat import Chat
from jaxtrace.grading.critic import criticised
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
def test_where_a_quote_lies(quote, steps, ahead):
    assert steps_of(quote, answer(PIECES, PROBLEM, ahead=ahead)) == steps


def test_characters_of_several_tokens():
    assert steps_of("né", answer(["n", "", "é", "e"], {})) == (0, 2)


def test_brute_force_of_every_passage():
    row = answer(PIECES, PROBLEM)
    owner = [step for step, piece in enumerate(PIECES) for _ in piece]
    for start in range(len(row.text)):
        for end in range(start + 1, len(row.text) + 1):
            quote = row.text[start:end]
            if quote.strip() == quote and row.text.count(quote) == 1 and "\n" not in quote:
                assert steps_of(quote, row) == (owner[start], owner[end - 1])


def label(reply, row, cache):
    with serving(reply) as api, Chat(api.url, "tiny", cache, retries=0) as chat:
        return criticised([row], [label_of(row)], chat)[0], api.asked


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_wrong_step_is_found(tmp_path, ahead):
    row = answer(PIECES, PROBLEM, text="How many?", ahead=ahead)
    got, asked = label(lambda _: json.dumps({"quote": "2 = 5"}), row, tmp_path)
    assert (got.wrong_from, got.wrong_to, got.wrong_by) == (1, 2, "critic tiny")
    assert data_of(asked[0]) == {"problem": "How many?", "reference": PROBLEM["solution"], "solution": row.text}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('{"quote": null}', "no wrong step found"),
        ('{"quote": "2 + 2 = 6"}', "a quote that is not in the answer exactly once"),
        ('{"quote": "5"}', "a quote that is not in the answer exactly once"),
        ('{"place": 1}', "an answer of another shape"),
    ],
)
def test_what_is_not_found_is_not_guessed(tmp_path, said, why):
    got, _ = label(lambda _: said, answer(PIECES, PROBLEM), tmp_path)
    assert (got.wrong_from, got.wrong_to, got.wrong_by) == (None, None, f"critic tiny: {why}")


def test_right_answers_and_those_without_a_solution_are_not_sent(tmp_path):
    broken = replace(answer(["#### 6"], PROBLEM), stop="not_finite")
    for row in (answer(["#### 5"], PROBLEM), answer(["no"], {"answer": "yes"}), broken):
        got, asked = label(lambda _: "null", row, tmp_path)
        assert got == label_of(row) and not asked
