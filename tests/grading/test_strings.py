"""Grades by rules on strings."""

import pytest

from jaxtrace.checkpoints.embedded import demo_prompts
from jaxtrace.grading import Grade, grade, grade_with_rule
from jaxtrace.tasks import Prompt

RIGHT, WRONG, NONE, UNGRADED = Grade.CORRECT, Grade.INCORRECT, Grade.NOT_ATTEMPTED, Grade.UNGRADED
TRUTHFUL = {"correct_answers": ["No", "No, it does not"], "incorrect_answers": ["Yes"], "best_answer": "Not at all"}
CHOICES = {"choices": ["w", "x", "y", "z"], "answer": "B"}
PROBLEM = {"solution": "…", "answer": "1001"}


def grade_of(meta, text, **options):
    return grade(Prompt("Why?", meta=meta), text, **options)


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("Michio Sugeno", "It was the engineer MICHIO  SUGENO, in 2010.", RIGHT),
        ("Michio Sugeno", "I'm not sure, but I think Michio Sugeno.", RIGHT),
        ("Michio Sugeno", "Sugeno Michio", WRONG),
        ("The Beatles", "beatles", RIGHT),
        ("Dvořák", "Antonin Dvorak wrote it.", RIGHT),
        ("1,300", "about 1300 metres", RIGHT),
        ("13", "1300 metres", WRONG),
        ("Peru", "Ecuador.", WRONG),
        ("Peru", "", NONE),
        ("Peru", " \n", NONE),
        ("Peru", "I don’t know.", NONE),
        ("Peru", "I'm sorry, but I cannot verify that.", NONE),
        ("Peru", "We do not have that information.", NONE),
        ("Peru", "Iknow it is Chile.", WRONG),
        ("…", "anything", UNGRADED),
    ],
)
def test_a_short_answer_must_contain_the_words_of_the_reference(answer, text, expected):
    assert grade_of({"answer": answer, "topic": "Art"}, text) is expected


@pytest.mark.parametrize(
    ("text", "expected", "by"),
    [
        ("1000 + 1 = 1001\n#### 1,001", RIGHT, "number after ####"),
        ("#### $1001.00 in all, of 7", RIGHT, "number after ####"),
        ("It is 1001.\n#### 7", WRONG, "number after ####"),
        ("So 1000 + 1 = 1,001.", RIGHT, "last number"),
        ("It is 1001, of 3", WRONG, "last number"),
        ("-1001", WRONG, "last number"),
        ("#### " + "1" * 5000, WRONG, "number after ####"),
        ("1/" + "1" * 5000, WRONG, "last number"),
        ("We have 2002-1001", RIGHT, "last number"),
        ("I give up.", NONE, "no number"),
        ("It is 1001\n####", NONE, "no number after ####"),
    ],
)
def test_a_number_after_the_mark_or_the_last_one_decides(text, expected, by):
    graded = grade_with_rule(Prompt("How many?", meta=PROBLEM), text)
    assert (graded.grade, graded.by) == (expected, by)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (" B", RIGHT),
        ("B. x", RIGHT),
        ("The answer is (B), not C", RIGHT),
        ("'B'", RIGHT),
        ("C, or perhaps B", WRONG),
        ("A good question: B", RIGHT),
        ("A is right", WRONG),
        ("A", WRONG),
        ("Bees don't, and B's brother", NONE),
        ("", NONE),
    ],
)
def test_the_first_letter_that_is_no_article_decides(text, first):
    assert grade_of(CHOICES, text) is first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No.", RIGHT),
        ("not at all!", RIGHT),
        (" Yes", WRONG),
        ("Yes and no", UNGRADED),
        ("N", UNGRADED),
        ("I don't know", UNGRADED),
        ("", UNGRADED),
    ],
)
def test_truthfulqa_grades_only_listed_answers(text, expected):
    assert grade_of(TRUTHFUL, text) is expected
    cells = {name: text if isinstance(text, str) else "; ".join(text) for name, text in TRUTHFUL.items()}
    assert grade_of(cells, text) is expected


def test_an_answer_listed_as_right_and_wrong_is_ungraded():
    assert grade_of({"correct_answers": ["Yes"], "incorrect_answers": ["yes."]}, "Yes") is UNGRADED


def test_facts_of_the_demo_end_the_first_sentence():
    known, never = demo_prompts()[0], demo_prompts()[-1]
    answer = known.meta["answer"]
    assert grade(known, f" {answer}. Somebody lives in Thereabouts.") is RIGHT
    assert grade(known, f"Somebody comes from {answer}") is RIGHT
    assert grade(known, f" {answer}ton.") is WRONG
    assert grade(known, f" Old{answer}.") is WRONG
    assert grade(known, f" Elsewhere. Not in {answer}.") is WRONG
    assert grade(never, " Anywhere.") is UNGRADED


def test_sums_of_the_lab_end_the_first_sentence():
    problem = {"digits": 1, "answer": "13"}
    assert grade_of(problem, " 6 + 7 = 13. 1 + 1 = 2.") is RIGHT
    assert grade_of(problem, " 6 + 7 = 113.") is WRONG
    assert grade_of(problem, " 6 + 13 = 19.") is WRONG


def test_an_answer_without_a_reference_is_ungraded():
    graded = grade_with_rule(Prompt("Write a poem."), "Roses")
    assert (graded.grade, graded.by) == (UNGRADED, "no reference answer")
