"""Grades by rules on strings, one rule per task."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.gsm8k import MARK
from jaxtrace.tasks.mmlu import LETTERS
from jaxtrace.tasks.published import has_letter_anywhere
from jaxtrace.tasks.truthfulqa import split_answers


class Grade(StrEnum):
    """Grade of an answer; `UNGRADED` if no rule, judge or reference answer decides."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NOT_ATTEMPTED = "not_attempted"
    UNGRADED = "ungraded"


@dataclass(frozen=True)
class RuleGrade:
    """Grade and the rule that gave it.

    Attributes:
      grade: grade of the answer.
      by: name of the rule, or the reason why none applies.
    """

    grade: Grade
    by: str


REFUSALS = re.compile(
    r"\b(i|we) (do not|don t|did not|didn t) (know|have|recall|remember|find)\b"
    r"|\b(i|we) (am|m|are|re) (not (sure|certain|aware|able|familiar)|unable|unsure|sorry|afraid)\b"
    r"|\b(i|we) (can not|cannot|can t|could not|couldn t) (answer|find|say|provide|verify|confirm|determine|recall)\b"
    r"|\bi have no (comment|idea|information|knowledge)\b"
    r"|\b(it is|it s|this is|is) (unknown|unclear|not known)\b"
)
NUMBER = re.compile(r"(?:(?<![\w)])-)?\$?\d[\d,]*(?:\.\d+)?")
ARTICLE = r"A (?!is\b)[a-z]"
LETTER = re.compile(rf"(?<!\w)(?<!\w['’])(?!{ARTICLE})[{LETTERS}](?!['’]?\w)")


def grade(prompt: Prompt, completion: str, *, letter_anywhere: bool = False) -> Grade:
    """Return the grade of an answer by its task's rule; see `grade_with_rule`."""
    return grade_with_rule(prompt, completion, letter_anywhere=letter_anywhere).grade


def grade_with_rule(prompt: Prompt, completion: str, *, letter_anywhere: bool = False) -> RuleGrade:
    """Grade an answer by the rule that the fields of `prompt.meta` select.

    - "choices" and "answer" (MMLU): the first of A to D that is a word and not an article decides. An answer without
      one is not attempted.
    - "solution" and "answer" (GSM8K): the number after "####", or the last number if the mark is absent, must be equal;
      `by` names the case. An answer without a number is not attempted.
    - "stated" or "digits", and "answer" (facts and sums of `jaxtrace.lab`): the first sentence must end with it.
    - "correct_answers" and "incorrect_answers" (TruthfulQA): the whole text must be one of them; other texts are
      ungraded. Each is a list, or a text with ";" between answers.
    - "answer" alone (SimpleQA, prompt files): the text must contain its words in order and without a gap, after case,
      accents, punctuation and articles are removed. Otherwise an empty text, or one that says it does not know, is not
      attempted, and every other text is incorrect, also a right answer in other words, which only a judge recognises.
    - none of these: the answer is ungraded.

    Args:
      prompt: prompt that was answered.
      completion: text of the answer, without the prompt.
      letter_anywhere: use Entropy-Lens's looser rule for MMLU (arXiv 2502.16570): the right letter may be any word.
    """
    meta = prompt.meta
    if "answer" not in meta:
        if {"correct_answers", "incorrect_answers"} <= meta.keys():
            return _grade_listed(meta, completion)
        return RuleGrade(Grade.UNGRADED, "no reference answer")
    answer = str(meta["answer"])
    if "choices" in meta and answer in list(LETTERS):
        return _grade_letter(answer, completion, letter_anywhere)
    if "solution" in meta and NUMBER.fullmatch(answer):
        return _grade_number(answer, completion)
    if meta.keys() & {"stated", "digits"}:
        right = f" {completion}".split(".")[0].endswith(f" {answer}")
        return RuleGrade(Grade.CORRECT if right else Grade.INCORRECT, "first sentence")
    return _grade_words(answer, completion)


def normalize_text(text: str) -> str:
    """Return the lower-case words of a text, one space apart, without accents, punctuation and articles."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    words = re.sub(r"[\W_]+", " ", plain).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def answer_list(answers: str | Sequence[str]) -> Sequence[str]:
    """Return answers as a list; a text, such as a cell of TruthfulQA.csv, has ";" between its answers."""
    return split_answers(answers) if isinstance(answers, str) else answers


def _grade_letter(answer: str, completion: str, anywhere: bool) -> RuleGrade:
    letters = LETTER.findall(completion)
    if not letters:
        return RuleGrade(Grade.NOT_ATTEMPTED, "no letter")
    right = has_letter_anywhere(answer, letters) if anywhere else answer == letters[0]
    return RuleGrade(Grade.CORRECT if right else Grade.INCORRECT, "letter anywhere" if anywhere else "first letter")


def _grade_number(answer: str, completion: str) -> RuleGrade:
    _, mark, after = completion.rpartition(MARK)
    numbers = NUMBER.findall(after)
    if not numbers:
        return RuleGrade(Grade.NOT_ATTEMPTED, f"no number after {MARK}" if mark else "no number")
    number = numbers[0] if mark else numbers[-1]
    right = _value(number) == _value(answer)
    return RuleGrade(Grade.CORRECT if right else Grade.INCORRECT, f"number after {MARK}" if mark else "last number")


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("$", ""))


def _grade_listed(meta: Mapping[str, Any], completion: str) -> RuleGrade:
    text = normalize_text(completion)
    right = {normalize_text(answer) for answer in [*answer_list(meta["correct_answers"]), meta.get("best_answer", "")]}
    wrong = {normalize_text(answer) for answer in answer_list(meta["incorrect_answers"])}
    if not text or (text in right) == (text in wrong):
        return RuleGrade(Grade.UNGRADED, "not word for word a listed answer")
    return RuleGrade(Grade.CORRECT if text in right else Grade.INCORRECT, "listed answer")


def _grade_words(answer: str, completion: str) -> RuleGrade:
    text, reference = normalize_text(completion), normalize_text(answer)
    if not reference:
        return RuleGrade(Grade.UNGRADED, "reference answer without words")
    if f" {reference} " in f" {text} ":
        return RuleGrade(Grade.CORRECT, "words of the answer")
    if not text or REFUSALS.search(text):
        return RuleGrade(Grade.NOT_ATTEMPTED, "no answer" if not text else "says it does not know")
    return RuleGrade(Grade.INCORRECT, "words of the answer")
