"""The letter that the published code of Entropy-Lens reads, and grades by it."""

import time

import pytest

from jaxtrace.grading import Grade, grade, grade_with_rule
from jaxtrace.grading.published_letter import published_letter
from jaxtrace.tasks import Prompt

ASKED = "Question: Who?\n\nChoices:\nA. me\nB. you\nC. he\nD. she\n\nAnswer: "


@pytest.mark.parametrize(
    ("prompt", "answer", "letter"),
    [
        (ASKED, "B, because A is not true", "B"),
        (ASKED, "Cells divide", "C"),
        (ASKED, "cells", "C"),
        (ASKED, "The answer is D", "D"),  # "answer: T…" is none of A to D
        (
            ASKED,
            "I think: D is correct, and the answer is A",
            "A",
        ),  # "answer is" stands before "is correct" in the list
        (ASKED, "it is D", "B"),  # no phrase; A and C occur often, B once, as a choice
        (ASKED, "nothing (B)", "B"),
        (ASKED, "[ B ]", "D"),  # no phrase has a space in brackets; B occurs twice, D once
        (ASKED, "so, a", "A"),
        ("", "social", "C"),  # "so" and a letter
        ("a b c d ", "a b c d", None),
        ("Given a hint, or two,\n bees\n", "", "B"),
        ("Given nothing\n, bees", "", "B"),
        ("Based on this, x, dogs or cats", "", "D"),
        ("The option is", " A", "A"),
        ("", "A", "A"),
        ("", "a bee", "A"),
        ("", "", None),
        ("= Cosine", "", "C"),
        ("Solution: **D", "", "D"),
        ("**D", "", "D"),
    ],
)
def test_the_first_phrase_of_the_list_decides_then_a_letter_that_occurs_once(prompt, answer, letter):
    assert published_letter(prompt, answer) == letter


def meta(answer):
    return {"choices": ["me", "you", "he", "she"], "answer": answer}


def test_grades_follow_the_letter_that_is_read():
    prompt = Prompt(ASKED, meta=meta("A"))
    assert grade(prompt, "B, because A is not true", published_checker=True) is Grade.INCORRECT
    assert grade_with_rule(Prompt(ASKED, meta=meta("C")), "Cells", published_checker=True).by == "published checker: C"
    assert grade(Prompt(ASKED, meta=meta("C")), "Cells", published_checker=True) is Grade.CORRECT
    assert grade(Prompt(ASKED, meta=meta("C")), "Cells") is Grade.NOT_ATTEMPTED
    graded = grade_with_rule(Prompt("a b c d", meta=meta("A")), " a b c d", published_checker=True)
    assert (graded.grade, graded.by) == (Grade.INCORRECT, "published checker: no letter")
    assert grade(prompt, "<think>A", published_checker=True) is Grade.INCORRECT  # "<THINK>A" follows "Answer: "
    assert grade(Prompt("Who?", meta={"answer": "Ada"}), "Ada", published_checker=True) is Grade.CORRECT


def test_long_texts_take_little_time():
    start = time.perf_counter()
    for text in (
        "based on " * 40_000,
        "given, " * 40_000,
        ", " * 100_000 + "based on" + "," * 100_000,
        "a " + " " * 100_000,
    ):
        published_letter(text, "")
    assert time.perf_counter() - start < 20
