"""Grades by rules on strings, each task's own."""

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
from jaxtrace.tasks.truthfulqa import parted


class Grade(StrEnum):
    """What an answer is; `UNGRADED` where no rule, judge or reference answer says."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NOT_ATTEMPTED = "not_attempted"
    UNGRADED = "ungraded"


@dataclass(frozen=True)
class Graded:
    """A grade and where it comes from.

    Attributes:
      grade: the grade.
      by: the rule that said so, or why none did.
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
    """The grade of an answer by its task's rule; see `graded`."""
    return graded(prompt, completion, letter_anywhere=letter_anywhere).grade


def graded(prompt: Prompt, completion: str, *, letter_anywhere: bool = False) -> Graded:
    """Grades an answer by the rule that the fields of `prompt.meta` call for.

    - "choices" and "answer" (MMLU): the first of A to D that stands alone and is no article. None is no attempt.
    - "solution" and "answer" (GSM8K): equality with the number after "####", or with the last number where there is
      no such mark; `by` tells the two apart. No number is no attempt.
    - "stated" or "digits", and "answer" (facts and sums of `jaxtrace.lab`): the first sentence ends with the answer.
    - "correct_answers" and "incorrect_answers" (TruthfulQA): the whole text is one of them; otherwise ungraded. Each
      is a list, or a text that ";" parts.
    - "answer" alone (SimpleQA, prompt files): its words stand in the text, in order and without a gap, once case,
      accents, punctuation and articles are gone. Otherwise, an empty text or one that says it does not know is no
      attempt, and what is left is incorrect: other wordings of a right answer too, which a judge would see.
    - none of these: ungraded.

    Args:
      prompt: what was asked.
      completion: the answer as text, without the prompt.
      letter_anywhere: MMLU by the looser rule of Entropy-Lens (arXiv 2502.16570): correct if the right letter stands
        alone anywhere.
    """
    meta = prompt.meta
    if "answer" not in meta:
        if {"correct_answers", "incorrect_answers"} <= meta.keys():
            return _listed(meta, completion)
        return Graded(Grade.UNGRADED, "no reference answer")
    answer = str(meta["answer"])
    if "choices" in meta and answer in list(LETTERS):
        return _letter(answer, completion, letter_anywhere)
    if "solution" in meta and NUMBER.fullmatch(answer):
        return _number(answer, completion)
    if meta.keys() & {"stated", "digits"}:
        right = f" {completion}".split(".")[0].endswith(f" {answer}")
        return Graded(Grade.CORRECT if right else Grade.INCORRECT, "first sentence")
    return _words(answer, completion)


def normalised(text: str) -> str:
    """Lower-case words with single spaces between: no accents, no punctuation, no articles."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    words = re.sub(r"[\W_]+", " ", plain).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def listed(answers: str | Sequence[str]) -> Sequence[str]:
    """Listed answers one by one; those of a cell of a CSV file are parted by ";", as in TruthfulQA.csv."""
    return parted(answers) if isinstance(answers, str) else answers


def _letter(answer: str, completion: str, anywhere: bool) -> Graded:
    letters = LETTER.findall(completion)
    if not letters:
        return Graded(Grade.NOT_ATTEMPTED, "no letter")
    right = answer in letters if anywhere else answer == letters[0]
    return Graded(Grade.CORRECT if right else Grade.INCORRECT, "letter anywhere" if anywhere else "first letter")


def _number(answer: str, completion: str) -> Graded:
    _, mark, after = completion.rpartition(MARK)
    numbers = NUMBER.findall(after)
    if not numbers:
        return Graded(Grade.NOT_ATTEMPTED, f"no number after {MARK}" if mark else "no number")
    number = numbers[0] if mark else numbers[-1]
    right = _value(number) == _value(answer)
    return Graded(Grade.CORRECT if right else Grade.INCORRECT, f"number after {MARK}" if mark else "last number")


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("$", ""))


def _listed(meta: Mapping[str, Any], completion: str) -> Graded:
    said = normalised(completion)
    right = {normalised(text) for text in [*listed(meta["correct_answers"]), meta.get("best_answer", "")]}
    wrong = {normalised(text) for text in listed(meta["incorrect_answers"])}
    if not said or (said in right) == (said in wrong):
        return Graded(Grade.UNGRADED, "not word for word a listed answer")
    return Graded(Grade.CORRECT if said in right else Grade.INCORRECT, "listed answer")


def _words(answer: str, completion: str) -> Graded:
    said, wanted = normalised(completion), normalised(answer)
    if not wanted:
        return Graded(Grade.UNGRADED, "reference answer without words")
    if f" {wanted} " in f" {said} ":
        return Graded(Grade.CORRECT, "words of the answer")
    if not said or REFUSALS.search(said):
        return Graded(Grade.NOT_ATTEMPTED, "no answer" if not said else "says it does not know")
    return Graded(Grade.INCORRECT, "words of the answer")
