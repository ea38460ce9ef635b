"""Copies of a directory as a SIGKILL leaves it at each step of the operating system that changes it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

STEPS = ("fsync", "mkdir", "remove", "rename", "replace", "rmdir", "unlink")


@contextmanager
def states_of_kills(directory: Path, copies: Path) -> Iterator[list[Path]]:
    """Collect the states of a directory before and after each step inside the block, each state once.

    A temporary file is also cut in half: a kill between two writes leaves that.

    Args:
      directory: directory to watch.
      copies: directory for the copies; it must not exist.

    Yields:
      The copies so far.
    """
    states, seen = [], set()

    def copy(keep: float = 1) -> None:
        files = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        for name, content in files.items():
            if name.suffix == ".tmp":
                files[name] = content[: int(keep * len(content))]
        if (state := frozenset(files.items())) in seen:
            return
        seen.add(state)
        states.append(copies / f"{len(states):03d}")
        for name, content in files.items():
            (states[-1] / name).parent.mkdir(parents=True, exist_ok=True)
            (states[-1] / name).write_bytes(content)

    def watched(step):
        def call(*arguments, **options):
            for keep in (0.5, 1):
                copy(keep)
            result = step(*arguments, **options)
            copy()
            return result

        return call

    with ExitStack() as stack:
        real = {name: getattr(os, name) for name in STEPS}
        busy = []  # the copies themselves are not watched

        def guarded(name):
            step = watched(real[name])

            def call(*arguments, **options):
                if busy:
                    return real[name](*arguments, **options)
                busy.append(name)
                try:
                    return step(*arguments, **options)
                finally:
                    busy.pop()

            return call

        for name in STEPS:
            stack.enter_context(patch.object(os, name, guarded(name)))
        yield states
