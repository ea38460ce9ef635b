"""The choice that an answer to a multiple-choice question names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from jaxtrace.tasks.mmlu import LETTERS

CUT_OFF, SEVERAL = "cut off before its answer", "several letters"
NEAR = 40  # characters before a letter in which it may be denied
ARTICLE = r"A (?!(?:is|because|since|as|or|and)\b)[a-z]"
LETTER = re.compile(rf"(?<!\w)(?<!\w['’])(?!{ARTICLE})[{LETTERS}](?!['’]?\w)")
ABOUT = r"\s+(?:is|says|states|describes|means|refers)\s+(?!(?:\w+ly |the |my )*(?:correct|right|true|best|answer))"
LEADING = re.compile(
    rf"\W*(?:(?:[Oo]ption|[Cc]hoice)\W+)?(?:{LETTER.pattern}(?!{ABOUT})|[{LETTERS.lower()}](?=[).:]|\W*$))"
)
MARKED = re.compile(
    r"(?i:\b(?:answer|boxed|choose|pick|select|(?:correct|right|best) (?:option|choice|letter|one))\b"
    r"(?:\W+(?:is|would|should|must|be|the|correct|option|choice|letter|therefore|thus|text|textbf|mathrm|mathbf)\b){0,5})"
    rf"(?:\W+[{LETTERS}](?!['’]?\w)|\W+[{LETTERS.lower()}](?=[).:]|\s*$))"
)
DENIED_BEFORE = re.compile(
    r"(?:\bnot|n['’]t|\bcannot|\bneither|\bnor|\brather than|\binstead of)(?: be)?(?: option| choice| answer)?\W*$",
    re.IGNORECASE,
)
RESTATED = re.compile(r"^\W?A[.):].*\n+\W?B[.):].*\n+\W?C[.):].*\n+\W?D[.):].*$", re.MULTILINE)
MORE_LETTERS = rf"(?:\W*(?:and|or|,|/|&)\W*[{LETTERS}]\b)"
DENIED_AFTER = re.compile(
    rf"{MORE_LETTERS}*\W*(?:(?:is|are) (?:\w+ly )?(?:not|wrong|incorrect|false)\b|(?:is|are)n['’]t\b)"
)
ONE_OF_SEVERAL = re.compile(rf"\W*(?:\b(?:and|or)\b|/|&)\W*(?:perhaps |maybe |possibly )?[{LETTERS}]\b")


class NamedChoice(NamedTuple):
    """Choice that an answer names.

    Attributes:
      letter: its letter; None if the answer settles on none.
      by: place of the letter, as `RuleGrade.by` names it; or the reason why there is none.
      denied: letters that the answer denies.
    """

    letter: str | None
    by: str
    denied: frozenset[str]


def named_choice(text: str, *, cut_off: bool = False) -> NamedChoice:
    """Return the choice that an answer names.

    A letter that the answer starts with decides; then one after "the answer is", "Answer:" or the like; then the first
    letter that stands alone and is no article. Denied letters do not count: "not A", "A is wrong".

    Args:
      text: answer.
      cut_off: True for an answer that the length limit ended, in whose running text no letter decides.
    """
    text = RESTATED.sub("", text)
    denied = set()
    for by, match in _candidates(text, cut_off):
        letter = match.group()[-1].upper()
        if DENIED_BEFORE.search(text[max(0, match.end() - NEAR) : match.end() - 1]) or DENIED_AFTER.match(
            text, match.end()
        ):
            denied.add(letter)
        elif ONE_OF_SEVERAL.match(text, match.end()):
            return NamedChoice(None, SEVERAL, frozenset(denied))
        else:
            return NamedChoice(letter, by, frozenset(denied))
    return NamedChoice(None, CUT_OFF if cut_off else "no letter", frozenset(denied))


def _candidates(text: str, cut_off: bool) -> Iterator[tuple[str, re.Match[str]]]:
    if leading := LEADING.match(text):
        yield "first letter", leading
    for marked in MARKED.finditer(text):
        yield "letter after 'answer'", marked
    if not cut_off:
        for match in LETTER.finditer(text):
            yield "first letter", match
