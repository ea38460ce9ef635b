"""Samplers of users: registered by a decorator or an entry point, made by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxtrace.engine.samplers.protocol import Sampler
from jaxtrace.errors import ConfigError, JaxtraceError, first_line
from jaxtrace.plugins import place_of
from jaxtrace.settings.sampling import BUILT_IN_SAMPLERS, SAMPLERS

F = TypeVar("F", bound=Callable[..., Any])


def sampler(name: str) -> Callable[[F], F]:
    """Return a decorator that registers a class of samplers, or a function that makes one, for `--sampler NAME`.

    Its keywords are the values of `--sampler-arg KEY=VALUE`. The sampler must be hashable, such as a frozen dataclass.

    Raises:
      ConfigError: the name is taken or has another character than letters, digits, "_" and "-".
    """

    def register(make: F) -> F:
        if name in BUILT_IN_SAMPLERS:
            raise ConfigError(f"jaxtrace.samplers: {name!r} is built in; choose another name")
        SAMPLERS.register(name, make, place_of(make))
        return make

    return register


def plugin_sampler(name: str, arguments: Mapping[str, Any]) -> Sampler:
    """Return the sampler of a plug-in.

    Raises:
      ConfigError: the plug-in cannot be imported, refuses the arguments, or makes no sampler.
    """
    make = SAMPLERS.find(name)
    assert make is not None  # the settings accept names of samplers only
    try:
        made = make(**arguments)
        hash(made)
    except JaxtraceError:
        raise
    except Exception as error:
        raise ConfigError(f"sampler {name}: {first_line(error)}; correct its sampler_arg, or the plug-in") from error
    if Sampler not in type(made).__mro__:
        raise ConfigError(f"sampler {name}: makes a {type(made).__name__}, no jaxtrace.Sampler; correct the plug-in")
    return made
