"""Choice of an operation's implementation: by argument, by environment variable, by platform."""

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
    """Choose implementations for another platform inside this context: for programs compiled here to run elsewhere.

    A function that `jax.jit` has traced already keeps the implementation it was traced with.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)


def target_platform() -> str:
    """Return the platform that programs traced now will run on."""
    return _target.get() or jax.default_backend()


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Attributes:
      function: function of the operation's arguments.
      platforms: platforms it runs on; empty means every platform.
      refuses: function of the same arguments; returns why they cannot be served, or None.
      differentiable: whether JAX differentiates the function itself. Otherwise its gradients come from the "xla"
        implementation, which computes the call again.
    """

    function: Callable[..., Any]
    platforms: tuple[str, ...] = ()
    refuses: Callable[..., str | None] = lambda *_, **__: None
    differentiable: bool = True

    def refusal(self, platform: str) -> str | None:
        """Return why it cannot run on `platform`, or None."""
        if self.platforms and platform not in self.platforms:
            return f"runs on {', '.join(self.platforms)}, and this is {platform}"
        return None


class Operation:
    """An operation and its implementations, the preferred one first."""

    def __init__(self, name: str, **implementations: Implementation) -> None:
        self.name = name
        self.implementations = implementations

    @classmethod
    def from_modules(cls, name: str, *, tpu: Any, gpu: Any, xla: Any, reference: Any, cpu: Any = None) -> Operation:
        """Return the operation whose implementations are the functions called `name` in four modules, or in five.

        A module's `refuses` says what it cannot serve. With `interpret` a Pallas function runs anywhere, slowly.
        """

        def custom(module: Any, *platforms: str, **options: bool) -> Implementation:
            function = functools.partial(getattr(module, name), **options)
            return Implementation(function, platforms, module.refuses, differentiable=False)

        return cls(
            name,
            pallas_tpu=custom(tpu, "tpu"),
            pallas_gpu=custom(gpu, "gpu"),
            **({} if cpu is None else {"cpu": custom(cpu, "cpu")}),
            xla=Implementation(getattr(xla, name)),
            reference=Implementation(getattr(reference, name)),
            pallas_tpu_interpret=custom(tpu, interpret=True),
            pallas_gpu_interpret=custom(gpu, interpret=True),
        )

    def __call__(self, *args: Any, implementation: str | None = None, **kwargs: Any) -> Any:
        """Call the implementation named by the argument, else by $JAXTRACE_KERNELS, else the platform's first.

        $JAXTRACE_KERNELS holds names of implementations, in order of preference, separated by commas.

        Raises:
          Unsupported: no requested implementation exists, runs here and serves these arguments.
        """
        chosen = self.choose(implementation, *args, **kwargs)
        if chosen.differentiable:
            return chosen.function(*args, **kwargs)
        return with_gradients_of(self.implementations["xla"].function, chosen.function, args, kwargs)

    def choose(self, implementation: str | None = None, *args: Any, **kwargs: Any) -> Implementation:
        """Return the implementation that serves a call; raises `Unsupported`."""
        variable = os.environ.get(VARIABLE, "")
        requested = [implementation] if implementation else list(filter(None, map(str.strip, variable.split(","))))
        platform = target_platform()
        reasons = []
        for name in requested or self.implementations:
            candidate = self.implementations.get(name)
            if candidate is None:
                reasons.append(f"{name}: no such implementation")
                continue
            reason = candidate.refusal(platform) or (candidate.refuses(*args, **kwargs) if args else None)
            if reason is None:
                return candidate
            reasons.append(f"{name}: {reason}")
        known = ", ".join(self.implementations)
        raise Unsupported(
            f"{self.name}: no implementation serves this call ({'; '.join(reasons)}); choose from {known}"
        )


def with_gradients_of(
    differentiable: Callable[..., Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call `function`; its gradients are the ones of `differentiable`, which computes the same."""
    arrays = {name: x for name, x in kwargs.items() if isinstance(x, jax.Array)}
    static = {name: x for name, x in kwargs.items() if name not in arrays}
    recompute = functools.partial(differentiable, **static)

    @jax.custom_vjp
    def call(args: Any, arrays: Any) -> Any:
        return function(*args, **arrays, **static)

    def forward(args: Any, arrays: Any) -> Any:
        return call(args, arrays), (args, arrays)

    def backward(inputs: Any, cotangents: Any) -> Any:
        return jax.vjp(lambda args, arrays: recompute(*args, **arrays), *inputs)[1](cotangents)

    call.defvjp(forward, backward)
    return call(args, arrays)
