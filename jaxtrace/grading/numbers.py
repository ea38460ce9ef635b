"""The number that an answer to an arithmetic problem gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from jaxtrace.tasks.gsm8k import MARK

NUMBER = re.compile(
    r"(?<![a-z_])(?P<sign>(?<![\w)\]}%])-)?(?:[$€£¥₹](?P<sign2>-|\s)?)?"
    r"(?P<whole>\d{1,3}(?:[ '’]\d{3})+(?!\d)|\d+(?:,\d+)*|(?=\.\d))(?P<decimals>\.\d+)?"
    r"(?:\s(?P<over>\d+)/(?P<under>\d+)|/(?P<divisor>\d+))?"
    r"(?:\s?(?P<scale>(?i:hundred|thousand|million|billion|k))\b)?"
)
SCALES = {"hundred": 10**2, "k": 10**3, "thousand": 10**3, "million": 10**6, "billion": 10**9}
GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{3})+")
DENIED = re.compile(r"(?:\bnot|n['’]t|\brather than|\binstead of)[\s*_$]*$", re.IGNORECASE)

SPELLINGS = (
    (re.compile(r"(?<![\w)\]}%] )(?<![\w)\]}%])\u2212\s(?=[$\d])|\b(?i:negative|(?<!\d )minus)\s+(?=[$\d])"), "-"),
    (re.compile(r"[\u2010-\u2013\u2212\ufe63\uff0d]"), "-"),
    (re.compile(r"[\u00a0\u2000-\u200a\u202f]"), " "),
    (re.compile(r"[\u200b\u2060]"), ""),
    *((re.compile(rf"\s?{sign}"), f" {value}") for sign, value in (("½", "1/2"), ("¼", "1/4"), ("¾", "3/4"))),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=[\d,])\\[!,;: ](?=\d)|\\!"), ""),
    (re.compile(r"\\[,;: ]|~|\\(?:quad|displaystyle|left|right)\b"), " "),
    (re.compile(r"(\\[dtc]?frac)\s*(\d)\s*(\d)"), r"\1{\2}{\3}"),
    (re.compile(r"(?<=\d)\s*(?=\\[dtc]?frac)"), " "),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|textrm|mbox)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\([$%#])"), r"\1"),
    (re.compile(r"\\approx"), "="),
)

HASHES = rf"(?<!#){MARK}(?!#)"
HEADING = re.compile(rf"{HASHES}[ *_]*(?:step|part|case|stage|section|question|problem|example)\b.*", re.IGNORECASE)
LISTED_HEADINGS = re.compile(rf"{HASHES}[ *_]*1[.):]\s(?=[\s\S]{{0,2000}}?{HASHES}[ *_]*2[.):]\s)")
LISTED_HEADING = re.compile(rf"{HASHES}[ *_]*\d+[.):]\s.*")
ANSWER_IS = (
    r"\banswer\b(?:\s+(?:to|of|for)\b[^.?!\n]{0,60}?)?[\s*_`]*"
    r"\b(?:is|was|would be|will be|should be|must be|comes? to|equals)\b"
)
MARKS = re.compile(
    rf"(?:(?P<hashes>{HASHES}(?:[\s*_]*(?:the )?(?:final )?answer\b(?: is)?)?)|(?P<is>{ANSWER_IS})"
    r"|(?P<boxed>\\(?:boxed|fbox)\s*(?=\{))|(?P<colon>\banswer\b(?:[\s*_`]*[:=→]|[ *_]*\n)))[\s*_`$(\[:]*",
    re.IGNORECASE,
)
NEAR = 200  # characters after a mark that are read
LINE_END = re.compile(rf"\n|{MARK}")
# A clause ends before a bracket or comma that follows it; "$1,001.00" has neither.
CLAUSE_END = re.compile(rf"{LINE_END.pattern}|[.;!?](?=[\s*_$]|$)|,(?=\s)|(?<=\S)\s\(")
BARE = re.compile(rf"[\s*_`$(\[]*{NUMBER.pattern}[\s*_`$%)\]]*(?:[^\W\d]+\W*){{0,2}}", re.IGNORECASE)


class FoundNumber(NamedTuple):
    """Number of an answer.

    Attributes:
      value: its value; None if its digits are grouped as no number is ("12,34,5").
      by: mark that it stands after, as `RuleGrade.by` names it.
      is_last: True if nothing follows it, so that a cut may have shortened it.
      digits: its digits as written, without separators.
    """

    value: Fraction | None
    by: str
    is_last: bool
    digits: str


def parse_number(text: str) -> Fraction | None:
    """Return the value of a text that is one number, or None."""
    match = NUMBER.fullmatch(text)
    return _value(match) if match else None


def marked_number(text: str) -> FoundNumber | str | None:
    """Return the number after the first answer mark that has one.

    Marks are "####", "\\boxed{…}", "the answer is …" and "Answer: …". A heading such as "#### Step 1" is no mark, nor
    is "Answer:" before a whole sentence.

    Returns:
      The number; or the reason why a mark has none; or None without a mark.
    """
    text = _spelled(text)
    empty = None
    for match in MARKS.finditer(text):
        kind = match.lastgroup or ""
        by = {"hashes": f"number after {MARK}", "boxed": r"number in \boxed"}.get(kind, "number after 'answer'")
        found = _number_of(kind, text, match.end())
        if found:
            return _found(found, by, text)
        line = LINE_END.search(text, match.end())
        if kind == "boxed" or (kind == "hashes" and not (line and text[line.end() :].strip())):
            empty = empty or f"no {by}"  # a line of words above further text is a heading
    return empty


def last_number(text: str) -> FoundNumber | None:
    """Return the last number of a text, ones that it denies excluded."""
    text = _spelled(text)
    numbers = list(_numbers(text))
    return _found(numbers[-1], "last number", text) if numbers else None


def _spelled(text: str) -> str:
    """Return a text with signs, spaces and LaTeX spelled in one way, without headings."""
    for pattern, plain in SPELLINGS:
        text = pattern.sub(plain, text)
    if LISTED_HEADINGS.search(text):
        text = LISTED_HEADING.sub("", text)
    return HEADING.sub("", text)


def _number_of(kind: str, text: str, start: int) -> re.Match[str] | None:
    text = text[: start + NEAR]
    if kind == "boxed":
        return _of_clause(text, start, _closing_brace(text, start))
    end = CLAUSE_END.search(text, start)
    stop = end.start() if end else len(text)
    clause = text[start:stop]
    if kind == "hashes":
        line = LINE_END.search(text, start)
        return _of_clause(text, start, stop) or _of_clause(text, start, line.start() if line else len(text))
    if end and end.group() == "?":
        return None
    if kind == "colon":
        return _of_clause(text, start, stop) if BARE.fullmatch(clause) else None
    numbers = list(_numbers(text, start, stop))
    is_clear = (
        len(numbers) == 1 or "=" in clause or (numbers and not re.search(r"\w", text[start : numbers[0].start()]))
    )
    return _of_clause(text, start, stop) if is_clear else None


def _of_clause(text: str, start: int, stop: int) -> re.Match[str] | None:
    """Return the number of a clause: its first one, or of an equation the last side's that is a single number."""
    sides, at = [], start
    for side in re.split(r"[=≈→]", text[start:stop]):
        sides.append(list(_numbers(text, at, at + len(side))))
        at += len(side) + 1
    filled = [side for side in sides if side]
    if not filled:
        return None
    return next((side[0] for side in reversed(filled) if len(side) == 1), filled[-1][0])


def _numbers(text: str, start: int = 0, stop: int | None = None) -> Iterator[re.Match[str]]:
    for match in NUMBER.finditer(text, start, len(text) if stop is None else stop):
        if not DENIED.search(text, max(0, match.start() - 16), match.start()):
            yield match


def _closing_brace(text: str, start: int) -> int:
    depth = 0
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return at
    return len(text)


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match.group()) > 1000:
        return None  # Python reads at most 4,300 digits
    whole, decimals = re.sub("[ '’]", "", match["whole"]), match["decimals"] or ""
    if GROUPED.fullmatch(whole):
        whole = whole.replace(",", "")
    elif whole.count(",") == 1 and not decimals:
        whole = whole.replace(",", ".")  # a decimal comma
    elif "," in whole:
        return None
    value = Fraction(f"{whole or 0}{decimals}")
    if int(match["under"] or 1) == 0 or int(match["divisor"] or 1) == 0:
        return None
    value = value / int(match["divisor"] or 1) + Fraction(int(match["over"] or 0), int(match["under"] or 1))
    value *= SCALES[match["scale"].lower()] if match["scale"] else 1
    return -value if "-" in (match["sign"], match["sign2"]) else value


def _found(match: re.Match[str], by: str, text: str) -> FoundNumber:
    digits = re.sub(r"[^\d.-]", "", match.group())
    return FoundNumber(_value(match), by, not text[match.end() :].strip(" *_$"), digits)
