"""Choosing an implementation of an operation: by argument, by environment variable, by platform."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

VARIABLE = "JAXTRACE_KERNELS"
_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


class Unsupported(ValueError):
    """No implementation of an operation can serve a call; the message lists every candidate with its reason."""


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Choices made inside are those of another platform: for programs that are compiled here to run elsewhere.

    A function that `jax.jit` has traced already keeps the choice it was traced with.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)


def target_platform() -> str:
    """The platform that programs traced now will run on."""
    return _target.get() or jax.default_backend()


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Attributes:
      function: takes the operation's arguments.
      platforms: where it runs; empty means everywhere.
      refuses: takes the same arguments, and says why the function cannot serve them, or None.
      differentiable: by JAX itself. The gradients of those that are not are those of the "xla" implementation, which
        computes the call again.
    """

    function: Callable[..., Any]
    platforms: tuple[str, ...] = ()
    refuses: Callable[..., str | None] = lambda *_, **__: None
    differentiable: bool = True

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

    @classmethod
    def of_modules(cls, name: str, *, tpu: Any, gpu: Any, xla: Any, reference: Any) -> Operation:
        """One whose implementations are the functions of its name in four modules.

        The Pallas ones say in `refuses` what they cannot serve; with `interpret` they run anywhere, slowly.
        """

        def pallas(module: Any, *platforms: str, **options: bool) -> Implementation:
            function = functools.partial(getattr(module, name), **options)
            return Implementation(function, platforms, module.refuses, differentiable=False)

        return cls(
            name,
            pallas_tpu=pallas(tpu, "tpu"),
            pallas_gpu=pallas(gpu, "gpu"),
            xla=Implementation(getattr(xla, name)),
            reference=Implementation(getattr(reference, name)),
            pallas_tpu_interpret=pallas(tpu, interpret=True),
            pallas_gpu_interpret=pallas(gpu, interpret=True),
        )

    def __call__(self, *args: Any, implementation: str | None = None, **kwargs: Any) -> Any:
        """Calls the implementation named by the argument, else by $JAXTRACE_KERNELS, else the platform's first.

        $JAXTRACE_KERNELS holds names of implementations, in order of preference, separated by commas.

        Raises:
          Unsupported: no wanted implementation exists, runs here and serves these arguments.
        """
        chosen = self.choose(implementation, *args, **kwargs)
        if chosen.differentiable:
            return chosen.function(*args, **kwargs)
        return _recomputing(chosen.function, self.implementations["xla"].function, args, kwargs)

    def choose(self, implementation: str | None = None, *args: Any, **kwargs: Any) -> Implementation:
        """The implementation that a call gets; raises `Unsupported`."""
        variable = os.environ.get(VARIABLE, "")
        wanted = [implementation] if implementation else [name.strip() for name in variable.split(",") if name.strip()]
        platform = target_platform()
        reasons = []
        for name in wanted or self.implementations:
            candidate = self.implementations.get(name)
            if candidate is None:
                reasons.append(f"{name}: no such implementation")
                continue
            reason = candidate.refusal(platform) or (candidate.refuses(*args, **kwargs) if args else None)
            if reason is None:
                return candidate
            reasons.append(f"{name}: {reason}")
        known = ", ".join(self.implementations)
        raise Unsupported(f"{self.name}: no implementation serves ({'; '.join(reasons)}); there are: {known}")


def _recomputing(
    function: Callable[..., Any], differentiable: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """`function`, whose gradients are those of a `differentiable` one that computes the same."""
    arrays = {name: x for name, x in kwargs.items() if isinstance(x, jax.Array)}
    static = {name: x for name, x in kwargs.items() if name not in arrays}
    again = functools.partial(differentiable, **static)

    @jax.custom_vjp
    def call(args, arrays):
        return function(*args, **arrays, **static)

    def forward(args, arrays):
        return call(args, arrays), (args, arrays)

    def backward(inputs, cotangents):
        return jax.vjp(lambda args, arrays: again(*args, **arrays), *inputs)[1](cotangents)

    call.defvjp(forward, backward)
    return call(args, arrays)
