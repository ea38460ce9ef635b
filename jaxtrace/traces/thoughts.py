"""A completion's thought and its answer, separated by the markers that reasoning models publish."""

from __future__ import annotations

import re
from typing import NamedTuple

TAG = r"(?:seed:)?(?:think|thinking|thoughts?|reason|reasoning|reflection|scratchpad)"
OPEN = re.compile(
    rf"<{TAG}>"  # DeepSeek-R1, Qwen3, SmolLM3, GLM, Seed-OSS, EXAONE Deep, and many others
    r"|\[THINK\]"  # Magistral
    r"|◁think▷"  # Kimi
    r"|<\|begin_of_thought\|>"  # Sky-T1, OpenThinker
    r"|<\|START_THINKING\|>"  # Command A Reasoning
    r"|<\|inner_prefix\|>"  # Apertus
    r"|<\|open\|>think<\|sep\|>"  # Kimi K3
    r"|<\|channel\|>(?:analysis|commentary)(?:[^<]*<\|message\|>)?"  # gpt-oss
    r"|\A(?-i:analysis(?=[A-Z]))"  # gpt-oss without its control tokens
    r"|<\|channel>thought|<unused94>thought"  # Gemma 4, MedGemma
    r"|(?:Here is|Here['’]s) my thought process:",  # Granite 3.2
    re.IGNORECASE,
)
# The end of a thought, or the start of an answer.
CLOSE = re.compile(
    rf"</{TAG}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<\|inner_suffix\|>|<\|close\|>think<\|sep\|>"
    r"|<\|channel\|>final(?:[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>)?|assistantfinal|<channel\|>|<unused95>"
    r"|(?:Here is|Here['’]s) my response:"
    r"|<(?:answer|response)>|<\|begin_of_(?:solution|box)\|>|<\|START_(?:RESPONSE|TEXT)\|>|<\|open\|>response<\|sep\|>",
    re.IGNORECASE,
)
END = re.compile(
    r"</(?:answer|response)>|<\|end_of_(?:solution|box)\|>|<\|END_(?:RESPONSE|TEXT)\|>|<\|close\|>response<\|sep\|>",
    re.IGNORECASE,
)


class SplitCompletion(NamedTuple):
    """Parts of a completion.

    Attributes:
      thought: text of the thought without its markers; "" if there is none.
      answer: text after the last closing marker, or the whole text if there is no marker; None if the thought is not
        closed.
      start: offset of the answer in the completion; the completion's length if there is no answer.
    """

    thought: str
    answer: str | None
    start: int


def split_completion(text: str, *, opened: bool = False) -> SplitCompletion:
    """Split a completion into its thought and its answer.

    Args:
      text: completion.
      opened: True if the prompt ends in an opening marker, as some chat templates do; see `opens_thought`.
    """
    start = max((match.end() for match in CLOSE.finditer(text)), default=0)
    if OPEN.search(text, start) or (opened and not start):
        return SplitCompletion(_without_markers(text), None, len(text))
    return SplitCompletion(_without_markers(text[:start]), END.split(text[start:])[0], start)


def count_markers(text: str) -> int:
    """Return the number of markers of thoughts in a text."""
    return len(OPEN.findall(text)) + len(CLOSE.findall(text))


def opens_thought(prompt: str) -> bool:
    """Return whether a prompt ends in an opening marker, so that the completion starts inside a thought."""
    last = max(OPEN.finditer(prompt), key=lambda match: match.end(), default=None)
    return last is not None and not prompt[last.end() :].strip()


def _without_markers(text: str) -> str:
    return CLOSE.sub("", OPEN.sub("", END.sub("", text))).strip()
