"""Choosing an implementation of an operation: by argument, by environment variable, by platform."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

VARIABLE = "JAXTRACE_KERNELS"


class Unsupported(ValueError):
    """No implementation of an operation can serve a call; the message lists every candidate with its reason."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Attributes:
      function: takes the operation's arguments.
      platforms: where it runs; empty means everywhere.
    """

    function: Callable[..., Any]
    platforms: tuple[str, ...] = ()

    def refusal(self, platform: str) -> str | None:
        """Why it cannot run on `platform`, or None."""
        if self.platforms and platform not in self.platforms:
            return f"runs on {', '.join(self.platforms)}, and this is {platform}"
        return None


class Operation:
    """An operation and its implementations, the preferred first."""

    def __init__(self, name: str, **implementations: Implementation):
        self.name = name
        self.implementations = implementations

    def __call__(self, *args: Any, implementation: str | None = None, **kwargs: Any) -> Any:
        """Calls the implementation named by the argument, else by $JAXTRACE_KERNELS, else the platform's first.

        $JAXTRACE_KERNELS holds names of implementations, in order of preference, separated by commas.

        Raises:
          Unsupported: no wanted implementation exists or runs here.
        """
        return self.choose(implementation).function(*args, **kwargs)

    def choose(self, implementation: str | None = None) -> Implementation:
        """The implementation that a call with this argument gets; raises `Unsupported`."""
        variable = os.environ.get(VARIABLE, "")
        wanted = [implementation] if implementation else [name.strip() for name in variable.split(",") if name.strip()]
        platform = jax.default_backend()
        reasons = []
        for name in wanted or self.implementations:
            candidate = self.implementations.get(name)
            reason = candidate.refusal(platform) if candidate else "no such implementation"
            if candidate and reason is None:
                return candidate
            reasons.append(f"{name}: {reason}")
        known = ", ".join(self.implementations)
        raise Unsupported(f"{self.name}: no implementation serves ({'; '.join(reasons)}); there are: {known}")
