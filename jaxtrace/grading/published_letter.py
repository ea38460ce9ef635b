"""The letter that the published code of Entropy-Lens (arXiv 2502.16570) reads from a prompt and its answer.

The code reads prompt and answer as one text, in capitals. The first phrase of its list that occurs gives the letter,
also inside a word: "Answer: Cells" gives C. Without one, it is the first of A to D that occurs exactly once, in words
too. The list is given here without the phrases that an earlier one contains.
"""

from __future__ import annotations

import re

from jaxtrace.tasks.mmlu import LETTERS

# "_" stands for the letter, a space beside it for any white space; the rest is a regular expression.
PHRASES = r"""
    answer: _ | answer is _ | _ is the correct answer | _ is correct | i choose _ | i would choose _ | choice _
    choice is _ | i select _ | selecting _ | option _ | option: _ | the option is _ | i think _ | i believe _
    i conclude _ | would be _ | should be _ | must be _ | response: _ | my response is _ | solution: _
    i am confident _ | definitely _ | certainly _ | letter _ | _ is the letter | let's go with _ | i'm going with _
    i pick _ | picking _ | therefore,? _ | thus,? _ | so,? _ | based on...,_ | given...,_ | = _ | → _
    \(_\) | \[_\] | \*\*_
"""


def _pattern(phrase: str) -> re.Pattern[str]:
    lead, rest_of_line, _ = phrase.upper().partition("...,_")
    if rest_of_line:  # the last comma of a line that is followed by a letter; only the line's first lead can matter
        return re.compile(rf"(?m:^)(?:(?!{lead}).)*+{lead}.*,\s*([{LETTERS}])")
    return re.compile(re.sub(" ?_ ?", lambda gap: gap[0].replace(" ", r"\s*").replace("_", f"([{LETTERS}])"), lead))


PATTERNS = [_pattern(phrase.strip()) for line in PHRASES.strip().splitlines() for phrase in line.split("|")]


def published_letter(prompt: str, answer: str) -> str | None:
    """Return the letter that the published code reads; None if it reads none, which it counts as wrong."""
    text = (prompt + answer).upper()
    for pattern in PATTERNS:
        if match := pattern.search(text):
            return match[1]
    return next((letter for letter in LETTERS if text.count(letter) == 1), None)
