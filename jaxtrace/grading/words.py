"""Whether an answer in words states a reference answer, denies it, or settles on nothing."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

ADVERBS = r"(?:(?:\w+ly|just|even|still|quite|100) )*"
FACTS = r"(?:information|records?|evidence|data|context|details)"
REFUSALS = re.compile(
    rf"(?:\b(?:i|we)|^) ?{ADVERBS}(?:(?:do not|dont|don t|did not|didn t|have not|haven t) {ADVERBS}"
    r"(?:know|have|recall|remember|find|found|heard|possess|(?:think|believe) (?:i|we) (?:know|have|can))"
    rf"|(?:am|m|are|re) not {ADVERBS}(?:sure|certain|aware|able|familiar|confident)"
    rf"|(?:am|m|was|are|re|were) {ADVERBS}(?:unable|unsure|unaware|uncertain|unfamiliar|sorry|afraid)"
    r"|(?:can not|cannot|can t|could not|couldn t|was not able to|wasn t able to) (?:\w+ ){0,2}"
    r"(?:answer|find|say|provide|give|verify|confirm|determine|recall|identify|tell|locate|help)"
    rf"|(?:have|ve) no (?:\w+ )?(?:comment|idea|knowledge|way|{FACTS})|lack (?:\w+ )?(?:knowledge|{FACTS}))\b"
    r"|\b(?:is|s) (?:unknown|unclear|uncertain)\b"
    r"|\b(?:is not|s not|isn t) (?:publicly |generally |widely )?"
    r"(?:known|clear|available|specified|disclosed|certain|possible to (?:say|tell|determine))\b"
    r"|\b(?:can not|cannot|can t|could not) be (?:determined|answered|verified|confirmed|known)\b"
    r"|\b(?:no one|nobody) knows\b"
    rf"|(?:\b(?:there (?:is|s)|i found) |^)(?:no|not enough|insufficient|limited) (?:\w+ ){{0,2}}{FACTS}\b"
    rf"|\bthere isn t (?:any|enough|sufficient) (?:\w+ ){{0,2}}{FACTS}\b"
    r"|\bmy (?:knowledge|training|training data) (?:does not|doesn t|did not|didn t)\b"
    r"|\b(?:could|can|would) you (?:please )?(?:\w+ )?(?:clarify|provide|specify|give|tell)\b"
    r"|\bplease (?:clarify|provide|specify)\b"
    r"|^(?:(?:i|we) (?:would |d )?(?:recommend|suggest)|you (?:should|can|could|may|might)|please) "
    r"(?:check|consult|visit|contact|refer)"
    r"|\b(?:need|require|without) (?:more|additional|further) (?:context|information|details)\b"
    r"|^(?:unknown|unsure|not sure|no idea|idk|n or)\b"  # "N/A" is normalized to "n or"
)
# A guess after a refusal is an attempt, and one before it, as in "I think it is Lyon, but I am not sure".
GUESS = re.compile(
    r"\b(?:i (?:do )?(?:think|believe|guess|suspect)|i (?:would|d) (?:say|guess)"
    r"|(?:my|best|a) (?:best |educated )?guess|but (?:perhaps|maybe|probably|possibly))\b"
    r"(?! (?:you|that you|i|that i|we can)\b)"
)

VERB = r"(?:is|s|are|was|were|has|had|did|does|will|would)"
LIMIT = r"(?:only|just|merely|simply|solely|until|before|after|least|than)"  # "not only Paris", "not until 1998"
STEP = rf"(?: (?!{VERB}\b|{LIMIT}\b)\w+)"
NOT = r"(?:not|never|neither|nor|cannot|\w+n t)"
# A denial before the words that it denies, and one after them.
DENIED_BEFORE = re.compile(
    rf"\b(?:{NOT}(?: {VERB})?|rather than|instead of|as opposed to|except|unlike|(?:any|every)thing but|no longer"
    rf"|(?<!none )(?<!nothing )(?<!no )other than)(?: ,(?: \w+){{1,3}} ,)?{STEP}{{0,4}} $"
    rf"|\b(?:{NOT} (?:\w+ )?(?:think|believe|say|true|correct|right|accurate|likely|case)|false|untrue|incorrect"
    r"|unlikely|doubtful|(?<!no )(?<!without )doubt|myth|misconception)(?: (?:that|to|it|if|whether)\b.*)? $"
)
DENIED_AFTER = re.compile(
    r"^ (?:(?:is|are|was|were|would be) (?:\w+ly )?(?:not|never|wrong|incorrect|false|untrue)"
    rf"|(?:isn|wasn|aren|weren) t)\b(?! {LIMIT}\b| yet\b)"
)
# One of several answers: "Paris or Lyon", "either Paris …", "Paris, Lyon, or Rome"; but not "Burma, or Myanmar".
MAYBE = r"(?:perhaps|maybe|possibly|even)"
ONE_OF_BEFORE = re.compile(rf"\beither(?: \w+){{0,3}} $|\w or (?:{MAYBE} )?$|, or {MAYBE} $|, [^|?]*, or $")
ONE_OF_AFTER = re.compile(
    rf"^(?:(?: , (?!or\b)\w+(?: \w+)?)+(?: ,)?| ,(?= or {MAYBE}\b))? or "
    r"(?!(?:so|not|rather|more|less|thereabouts)\b)"
)
# A belief that the next clause corrects: "you might think Paris, but …".
BELIEF = re.compile(r"\b(?:you|some|many|most|people|others|one) (?:\w+ ){0,2}(?:think|believe|say|assume|guess)\b")
CORRECTION = re.compile(r"[,| ]*(?:but|however|though|yet|actually|in fact|in reality)\b")
# A last word after which more must follow.
OPEN_END = re.compile(
    r"a|an|the|of|in|on|at|to|for|from|by|with|as|and|or|is|are|was|were|be|been|not|[-=+×*/]", re.IGNORECASE
)
MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
NEAR = 200  # characters before and after a mention that are read
SENTENCE_END = re.compile(r"[.!?…。](?=\W|$)|\S\s*\n")


class Mention(StrEnum):
    """How an answer in words uses a reference."""

    STATED = "stated"
    DENIED = "denied"
    ONE_OF_SEVERAL = "one of several"
    OPEN = "open"
    ABSENT = "absent"


def normalize_text(text: str) -> str:
    """Return the lower-case words of a text, one space apart, without accents, punctuation and articles."""
    return " ".join(word for word in _tokens(text) if word not in (",", "|", "?"))


def mention_of(reference: str, text: str) -> Mention:
    """Return how a text uses a reference; its last mention that states or denies decides.

    Case, accents, punctuation and articles do not matter. A denial counts within its clause. A mention is open in a
    question, in a clause that refuses to answer, and in a belief that the next clause corrects.
    """
    words = normalize_text(reference).split()
    tokens = f" {' '.join(_tokens(text))} "
    tokens = re.sub(r"(?<!thing) (?=(?:but|although|though|whereas|while|because|since) )", " | ", tokens)
    result = Mention.ABSENT
    for match in re.finditer(rf"(?<= ){'(?: [,|])* '.join(map(re.escape, words))}(?= )", tokens):
        used = _use(tokens, match)
        if used is not Mention.OPEN or result is Mention.ABSENT:
            result = used
    return result


def refuses(text: str) -> bool:
    """Return whether a text says that it does not know, and then makes no guess."""
    words = normalize_text(text)
    refusal = REFUSALS.search(words)
    if refusal is None or GUESS.search(words, refusal.end()):
        return False
    guess = GUESS.search(words, 0, refusal.start()) if refusal.group().startswith("i ") else None
    return guess is None or not words[guess.end() : refusal.start()].strip()


def breaks_off(text: str, reference: str) -> bool:
    """Return whether a text that was cut ends within its answer: after "is a", say, or within the reference's word."""
    last = "".join(text.split()[-1:])
    return bool(OPEN_END.fullmatch(last)) or reference.casefold().startswith(last.casefold())


def _use(tokens: str, match: re.Match[str]) -> Mention:
    start = max(tokens.rfind(mark, max(0, match.start() - NEAR), match.start()) for mark in "|?") + 1
    ends = (tokens.find(mark, match.end(), match.end() + NEAR) for mark in "|?")
    end = min((at for at in ends if at >= 0), default=len(tokens))
    before, after = tokens[max(start, match.start() - NEAR) : match.start()], tokens[match.end() : end][:NEAR]
    near_before, near_after = before.rpartition(" ,")[2], after.partition(" ,")[0]
    if REFUSALS.search(f"{near_before}{match.group()}{near_after}".strip()) or tokens[end : end + 1] == "?":
        return Mention.OPEN
    if BELIEF.search(near_before) and CORRECTION.match(tokens, end):
        return Mention.OPEN
    denied = DENIED_BEFORE.search(before if re.search(rf"{NOT} ,(?: \w+){{1,3}} , $", before) else near_before)
    if denied or DENIED_AFTER.search(near_after):
        return Mention.DENIED
    if ONE_OF_BEFORE.search(before) or ONE_OF_AFTER.search(after):
        return Mention.ONE_OF_SEVERAL
    return Mention.STATED


def _tokens(text: str) -> list[str]:
    """Return lower-case words, and "," for a comma, "?" for a question mark, "|" for the end of another clause."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    plain = re.sub(r"\b(?:[^\W\d_]\.\s?)+[^\W\d_]\.", lambda dotted: re.sub(r"\W", "", dotted.group()), plain)  # U.S.
    plain = re.sub(rf"\b({MONTHS}) (\d{{1,2}})(?:st|nd|rd|th)?\b", r"\2 \1", plain)
    plain = re.sub(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?={MONTHS}\b)", r"\1 ", plain)
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    plain = re.sub(r"(?<![\d.])(\d+)\.(\d+)(?!\.?\d)", r"\1point\2", plain)  # 12.5 is one word, which has no 5
    plain = re.sub(r"(?<=\w)\s?/\s?(?=[^\W\d])", " or ", plain)
    plain = re.sub(r"(?<!\b\w)(?<!\b[dms][rst])\.|[;:!()\n—–]", " | ", plain)  # not after initials and titles
    return [word for word in re.findall(r"[^\W_]+|[,|?]", plain) if word not in ("a", "an", "the")]
