"""Prompts, as tasks give them and runs trace them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

SYSTEM_ROLES = ("system", "developer")
LAST_TOKEN_ID = 2**31 - 1  # ids are int32 on devices
ROLES = (*SYSTEM_ROLES, "user", "assistant", "tool")


@dataclass(frozen=True)
class Prompt:
    """Prompt of one row: text, turns of a chat, or token ids for a checkpoint without a tokenizer.

    Attributes:
      text: text as a person wrote it; with `messages`, the text of the last turn; None if `tokens` is given.
      tokens: exact ids to feed; None if `text` is given.
      id: stable name within its task ("truthfulqa-0017").
      images: images for a multimodal model: files, or Pillow images.
      meta: metadata from the task (category, answers), JSON-serialisable; stored with the trace.
      messages: turns of a chat to answer, from `chat_messages`: {"role": …, "content": …} each; None for a lone text.
    """

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    id: str = ""
    images: tuple[Any, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, Any], ...] | None = None


def token_ids(values: Any) -> tuple[int, ...]:
    """Return token ids as Python integers; integers and arrays of NumPy, JAX and torch are accepted.

    Raises:
      ValueError: the values are no list, or hold a float, a truth value, a text or a number out of range; the message
        says what to do.
    """
    values = _plain(values)
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise ValueError(f"{values!r:.60} is not a list of token ids; write it as [1, 2, 3]")
    values = [_plain(value) for value in values]
    if wrong := [value for value in values if isinstance(value, bool) or not isinstance(value, int)]:
        raise ValueError(f"{wrong[0]!r:.60} is not a token id; write a list of integers: [1, 2, 3]")
    if wrong := [value for value in values if not 0 <= value <= LAST_TOKEN_ID]:
        raise ValueError(f"{wrong[0]!r:.60} is not a token id; ids are from 0 to {LAST_TOKEN_ID}")
    return tuple(values)


def _plain(value: Any) -> Any:
    """Return an array or a scalar of an array library as lists and numbers of Python."""
    return value.tolist() if hasattr(value, "tolist") else value


def chat_messages(turns: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Return the turns of a chat that waits for an answer.

    Args:
      turns: {"role": one of `ROLES`, "content": text} each; the last one is a user's or a tool's.

    Raises:
      ValueError: a turn has another role, another field or no text, or the last one has another role; the message says
        what to do.
    """
    if not isinstance(turns, list | tuple) or not turns:
        raise ValueError('\'messages\' is not a list of turns; write it as [{"role": "user", "content": "…"}]')
    for number, turn in enumerate(turns, 1):
        place = f"'messages', turn {number}"
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise ValueError(f'{place}: is not an object with a role and content; write {{"role": …, "content": …}}')
        if other := [name for name in turn if name not in ("role", "content")]:
            raise ValueError(f"{place}: has {other[0]!r}; only 'role' and 'content' are supported, so remove it")
        if turn["role"] not in ROLES:
            raise ValueError(f"{place}: role is {turn['role']!r}; it must be one of {', '.join(ROLES)}")
        if not isinstance(turn["content"], str) or not turn["content"].strip():
            raise ValueError(f"{place}: content is {turn['content']!r}; write a text there")
    if turns[-1]["role"] not in ("user", "tool"):
        raise ValueError(
            f"'messages' ends with the turn of the {turns[-1]['role']}; end with one of the user, and give the "
            "answer's beginning as prefix (--prefix)"
        )
    return tuple(turns)
