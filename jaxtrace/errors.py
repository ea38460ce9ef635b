"""The errors a user can mend. Each message is one line: what is wrong, and what to do about it."""


class JaxtraceError(Exception):
    """Base of every error that the command line prints as one line and exits 2 on."""


def first_line(error: Exception) -> str:
    """The first line of another library's error, or its name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class CheckpointError(JaxtraceError):
    """A checkpoint that cannot be read exactly: missing, foreign, incomplete or unsafe."""


class ConfigError(JaxtraceError):
    """A model or run configuration that says something we do not understand."""


class PromptError(JaxtraceError):
    """A prompt, or a file of prompts, that cannot be traced."""


class StoreError(JaxtraceError):
    """A trace directory that cannot be written or read."""


class StudyError(JaxtraceError):
    """Traces, labels or settings of which a study can make nothing."""
