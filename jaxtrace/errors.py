"""User-fixable errors. Each message is one line: where, what is wrong with the value shown, what to do."""

from collections.abc import Sequence


class JaxtraceError(Exception):
    """Base of every error that the command line prints as one line, with exit status 2."""


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or the name of its class if it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def few(items: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """Return the first items as text, and the number of the others: "a, b and 120 more"."""
    others = len(items) - most
    return separator.join(items[:most]) + (f" and {others} more" if others > 0 else "")


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
