"""Grades by rules on strings, one rule per task."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jaxtrace.grading.letters import CUT_OFF, SEVERAL, named_choice
from jaxtrace.grading.numbers import last_number, marked_number, parse_number
from jaxtrace.grading.published_letter import published_letter
from jaxtrace.grading.words import SENTENCE_END, Mention, breaks_off, mention_of, normalize_text, refuses
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.mmlu import LETTERS
from jaxtrace.tasks.truthfulqa import split_answers
from jaxtrace.traces.thoughts import split_completion


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


# A new question or turn that a model goes on to write after its answer, as base models do.
RUN_ON = re.compile(
    r"\n[ \t#*_]*(?:Q|Question|Problem|Exercise|Instruction|Human|User)(?: \d+)?[*_]*\s*:"
    r"|<\|(?:im_end|im_start|endoftext|eot_id|end|user)\|>|</s>|\[INST\]",
    re.IGNORECASE,
)
LISTS = {"correct_answers", "incorrect_answers"}
NAME_WORDS = 5  # number of words up to which an answer without a full stop may be whole
DECIDED = (Grade.CORRECT, Grade.INCORRECT)


def grade(prompt: Prompt, completion: str, *, published_checker: bool = False, cut_off: bool = False) -> Grade:
    """Return the grade of a completion by its task's rule; see `grade_with_rule`."""
    return grade_with_rule(prompt, completion, published_checker=published_checker, cut_off=cut_off).grade


def grade_with_rule(
    prompt: Prompt, completion: str, *, published_checker: bool = False, cut_off: bool = False
) -> RuleGrade:
    """Grade a completion without its thought; see `split_completion` and `grade_answer`.

    The published checker reads the whole completion.
    """
    answer = completion if published_checker else split_completion(completion).answer
    return grade_answer(prompt, answer, published_checker=published_checker, cut_off=cut_off)


def grade_answer(
    prompt: Prompt, answer: str | None, *, published_checker: bool = False, cut_off: bool = False
) -> RuleGrade:
    """Grade an answer by the rule that the fields of `prompt.meta` select; docs/grading.md has the rules in full.

    - "choices" and "answer" (MMLU): the letter that the answer starts with, or calls its answer, or names first must be
      the right one. An answer without one is not attempted.
    - "solution" and "answer" (GSM8K): the number after the first answer mark, or the last number without a mark, must
      be equal; `by` names the case. An answer without a number is not attempted.
    - "stated" or "digits", and "answer" (facts and sums of `jaxtrace.lab`): the first sentence must end with it.
    - "correct_answers" and "incorrect_answers" (TruthfulQA): the whole text must be one of them; other texts are
      ungraded. Each is a list, or a text with ";" between answers.
    - "answer" alone (SimpleQA, prompt files): the text must state its words in order and without a gap, after case,
      accents, punctuation, articles and forms of dates are made equal; a denial or one of several answers is incorrect.
      Otherwise an empty text, or one that says it does not know, is not attempted, and every other text is incorrect,
      also a right answer in other words, which only a judge recognises.
    - none of these: the answer is ungraded.

    A thought that is not closed is no attempt, nor is an answer that was cut off before it gave what its rule reads. A
    new question that the model writes after its answer ("\\nQ: …"), and what follows it, do not count.

    Args:
      prompt: prompt that was answered.
      answer: text of the answer, without the prompt and without a thought; None if the thought is not closed.
      published_checker: grade MMLU as the published code of Entropy-Lens does (arXiv 2502.16570): by the letter that
        `published_letter` reads from the prompt's text and the answer, thought included; no letter is incorrect.
      cut_off: True if the length limit ended the answer.
    """
    if "answer" not in prompt.meta and not prompt.meta.keys() >= LISTS:
        return RuleGrade(Grade.UNGRADED, "no reference answer")
    if published_checker and _is_lettered(prompt.meta):
        letter = published_letter(prompt.text or "", answer or "")
        return _decided(letter == prompt.meta["answer"], f"published checker: {letter or 'no letter'}")
    if answer is None:
        return RuleGrade(Grade.NOT_ATTEMPTED, "thought not closed")
    lead = len(answer) - len(answer.lstrip())
    run_on = RUN_ON.search(answer, lead)
    if run_on and (graded := _grade(prompt.meta, answer[: run_on.start()], False)).grade in DECIDED:
        return graded
    return _grade(prompt.meta, answer, cut_off)


def answer_list(answers: str | Sequence[str]) -> Sequence[str]:
    """Return answers as a list; a text, such as a cell of TruthfulQA.csv, has ";" between its answers."""
    return split_answers(answers) if isinstance(answers, str) else answers


def _grade(meta: Mapping[str, Any], text: str, cut_off: bool) -> RuleGrade:
    if "answer" not in meta:
        return _grade_listed(meta, text)
    answer = str(meta["answer"])
    if _is_lettered(meta):
        return _grade_letter(answer, text, cut_off)
    if "solution" in meta and parse_number(answer) is not None:
        return _grade_number(answer, text, cut_off)
    if meta.keys() & {"stated", "digits"}:
        return _grade_first_sentence(answer, text, cut_off)
    return _grade_words(answer, text, cut_off)


def _is_lettered(meta: Mapping[str, Any]) -> bool:
    """Return True for a question whose answer is one of some letters, as MMLU's."""
    return "choices" in meta and meta.get("answer") in list(LETTERS)


def _grade_letter(answer: str, text: str, cut_off: bool) -> RuleGrade:
    letter, by, denied = named_choice(text, cut_off=cut_off)
    if letter is None:
        if answer in denied:
            return RuleGrade(Grade.INCORRECT, "denies the answer")
        return RuleGrade(Grade.INCORRECT if by == SEVERAL else Grade.NOT_ATTEMPTED, by)
    return _decided(letter == answer, by)


def _grade_number(answer: str, text: str, cut_off: bool) -> RuleGrade:
    found = marked_number(text)
    if found is None:
        found = CUT_OFF if cut_off else last_number(text) or "no number"
    if isinstance(found, str):
        return RuleGrade(Grade.NOT_ATTEMPTED, found)
    right = found.value is not None and found.value == parse_number(answer)
    if cut_off and not right and found.is_last and answer.startswith(found.digits):
        return RuleGrade(Grade.NOT_ATTEMPTED, "cut off in its answer")
    return _decided(right, found.by)


def _grade_first_sentence(answer: str, text: str, cut_off: bool) -> RuleGrade:
    sentence, end, _ = f" {text}".partition(".")
    right = sentence.endswith(f" {answer}")
    if cut_off and not (right or end) and breaks_off(sentence, answer):
        return RuleGrade(Grade.NOT_ATTEMPTED, CUT_OFF)
    return _decided(right, "first sentence")


def _grade_listed(meta: Mapping[str, Any], completion: str) -> RuleGrade:
    text = normalize_text(completion)
    right = {normalize_text(answer) for answer in [*answer_list(meta["correct_answers"]), meta.get("best_answer", "")]}
    wrong = {normalize_text(answer) for answer in answer_list(meta["incorrect_answers"])}
    if not text or (text in right) == (text in wrong):
        return RuleGrade(Grade.UNGRADED, "not word for word a listed answer")
    return _decided(text in right, "listed answer")


def _grade_words(answer: str, text: str, cut_off: bool) -> RuleGrade:
    if not normalize_text(answer):
        return RuleGrade(Grade.UNGRADED, "reference answer without words")
    mention = mention_of(answer, text)
    if mention is Mention.STATED:
        return RuleGrade(Grade.CORRECT, "words of the answer")
    if mention is Mention.DENIED:
        return RuleGrade(Grade.INCORRECT, "denies the answer")
    if mention is Mention.ONE_OF_SEVERAL:
        return RuleGrade(Grade.INCORRECT, "several answers")
    if not normalize_text(text):
        return RuleGrade(Grade.NOT_ATTEMPTED, "no answer")
    if refuses(text):
        return RuleGrade(Grade.NOT_ATTEMPTED, "says it does not know")
    if cut_off and not SENTENCE_END.search(text) and (len(text.split()) > NAME_WORDS or breaks_off(text, answer)):
        return RuleGrade(Grade.NOT_ATTEMPTED, CUT_OFF)
    return RuleGrade(Grade.INCORRECT, "words of the answer")


def _decided(right: bool, by: str) -> RuleGrade:
    return RuleGrade(Grade.CORRECT if right else Grade.INCORRECT, by)
