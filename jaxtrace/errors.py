"""User-fixable errors. Each message is one line: where, what is wrong with the value shown, what to do."""

import errno
import re
import unicodedata
from collections.abc import Sequence

LONGEST_VALUE = 300  # characters of a value that a message shows
LONGEST_MESSAGE = 2000
# A value that a message quotes, and a word: what may be long in a message that names values.
LONG = re.compile(
    rf"""(?<!\w)'[^']{{{LONGEST_VALUE},}}'|(?<!\w)"[^"]{{{LONGEST_VALUE},}}"|"""
    rf"\S{{{LONGEST_VALUE + 1},}}?(?=[,.:;)]*(?:\s|\Z))"
)
# Control, invisible, unassigned and private characters, halves of surrogate pairs, separators of lines and paragraphs.
ESCAPED = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")

MAKE_ROOM = "make room on the disk (space, or number of files), or name another place"
REMEDIES = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EFBIG: MAKE_ROOM,
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
}


class JaxtraceError(Exception):
    """Base of every error that the command line prints as one line, with exit status 2."""

    def __init__(self, message: str = "") -> None:
        """Take the message, as `one_line` shows it."""
        super().__init__(one_line(message))


def visible(text: object, keep: str = "") -> str:
    """Return a text whose control and invisible characters are escaped, such as an escape character as \\x1b.

    Args:
      text: text of a model, a file or a server, or a value that has one.
      keep: control characters that stay.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(character) in ESCAPED and character not in keep
        else character
        for character in text
    )


def shown(value: object, most: int = LONGEST_VALUE) -> str:
    """Return a value as messages show it: escaped, see `visible`, and cut to some characters."""
    text = str(value)
    cut = visible(text[: most + 1])
    return cut if len(cut) <= most else f"{cut[: most - 1]}…"


def one_line(message: object) -> str:
    """Return a message as one line: escaped, with long words and quoted values cut, and the middle of a longer rest."""
    text = visible(_without_middle(str(message), 10 * LONGEST_MESSAGE))
    return _without_middle(LONG.sub(lambda word: shown(word[0]), text), LONGEST_MESSAGE)


def _without_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or the name of its class if it has no text."""
    return shown(next(iter(str(error).strip().splitlines()), type(error).__name__))


def reason_of(error: BaseException) -> str:
    """Return why the operating system or another library failed, without the file."""
    return getattr(error, "strerror", None) or first_line(error)


def os_error_line(error: OSError) -> str:
    """Return the line for an error of the operating system: the file, the reason, what to do."""
    remedy = REMEDIES.get(error.errno or 0, "fix it, or name another place")
    return f"{error.filename or 'standard output or a file'}: {reason_of(error)}; {remedy}"


def few(items: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """Return the first items as text, and the number of the others: "a, b and 120 more"."""
    others = len(items) - most
    return separator.join(map(shown, items[:most])) + (f" and {others} more" if others > 0 else "")


class CheckpointError(JaxtraceError):
    """A checkpoint cannot be read exactly: it is missing, foreign, incomplete or unsafe."""


class ConfigError(JaxtraceError):
    """A setting of a model or a run is unknown or out of range."""


class PromptError(JaxtraceError):
    """A prompt or a file of prompts cannot be traced."""


class OutOfMemoryError(JaxtraceError):
    """A model or a run needs more memory than this machine or its devices have."""


class StoreError(JaxtraceError):
    """A trace directory cannot be read or written."""


class StudyError(JaxtraceError):
    """Traces, labels or settings do not suffice for a study."""


class LackingError(StudyError):
    """A trace, or what is given beside it, lacks what an estimator or a study needs; another one could have it."""
