"""The one rule for outputs that exist: which `--out` a command writes, and which it refuses."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from jaxtrace.errors import StoreError
from jaxtrace.files import LOCK, TEMPORARY, check_writable, refuse_irregular


def claim_file(out: Path, *beside: Path, overwrite: bool = False) -> None:
    """Refuse an output file that exists (unless `overwrite`) or cannot be written; see `claim_directory`.

    Args:
      beside: further files that are written to the same directory.
    """
    for file in (out, *beside):
        refuse_irregular(file)
        if not overwrite and file.exists() and file.stat().st_size:
            raise StoreError(f"{file}: exists already; replace it with --overwrite, or name another file")
    check_writable(out.parent)


def claim_directory(
    out: Path, last: str, own: Sequence[str], *, overwrite: bool = False, resume: bool | None = None
) -> None:
    """Refuse an output directory that is in use or cannot be written; called before the work that fills it.

    The one rule for `--out`: a missing, empty or unfinished output is written; a finished one and other files are
    refused.

    Args:
      last: name of the file that is written last; with it the output is finished.
      own: patterns of the names of the other files and directories in such an output.
      overwrite: True accepts everything; the caller replaces files of its own names.
      resume: True also accepts a finished output; None if the command has no such option.

    Raises:
      StoreError: the directory is a file, or holds a finished output or other files.
      OSError: the directory cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file; name a directory")
    names = [path.name for path in out.iterdir()] if out.exists() else []
    foreign = [name for name in names if not any(fnmatch(name, each) for each in (last, *own, TEMPORARY, LOCK))]
    if not overwrite and (foreign or (last in names and not resume)):
        problem = f"holds {min(foreign)}" if foreign else f"holds a finished result, {last}"
        ways = "continue it with --resume, " if resume is False and not foreign else ""
        raise StoreError(f"{out}: {problem}; {ways}replace it with --overwrite, or name another directory")
    check_writable(out)
