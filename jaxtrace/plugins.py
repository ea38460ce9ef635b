"""Objects by name that users extend: with a decorator in their own program, or with entry points of a package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from jaxtrace.errors import ConfigError, JaxtraceError, first_line, shown

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one kind by name: built-in ones, those of a decorator, and those of entry points.

    An entry point is imported when its name is first looked up. It names an object of the kind, or a function or class
    that a decorator registers under the entry's name.
    """

    def __init__(self, kind: str, accepts: Callable[[object], bool] = lambda _: False) -> None:
        """Create an empty registry.

        Args:
          kind: name of the kind, in the plural; its entry points are in the group "jaxtrace.KIND".
          accepts: test of whether an object that no decorator has registered is of the kind.
        """
        self.group = f"jaxtrace.{kind}"
        self._accepts = accepts
        self._objects: dict[str, T] = {}
        self._origins: dict[str, str] = {}

    def register(self, name: str, value: T, origin: str) -> None:
        """Add an object.

        Args:
          name: letters, digits, "_" and "-".
          origin: place of the code that the object is made of, see `place_of`. Code of another place must not take its
            name; the same may come again, as when a cell of a notebook runs twice.

        Raises:
          ConfigError: the name is taken or has another character.
        """
        if not name.replace("-", "_").isidentifier():
            raise ConfigError(f"{self.group}: {shown(name)!r} is no name; use letters, digits, _ and -")
        if self._origins.setdefault(name, origin) != origin:
            raise ConfigError(f"{self.group}: {self._origins[name]} and {origin} are both named {name!r}; rename one")
        self._objects[name] = value

    @property
    def names(self) -> list[str]:
        """Names of all objects; no entry point is imported."""
        return [*dict.fromkeys([*self._objects, *(entry.name for entry in self._entries)])]

    def find(self, name: str) -> T | None:
        """Return an object by name, or None if there is none.

        Raises:
          ConfigError: its entry point cannot be imported, names no object of the kind, or has a name that is taken.
        """
        for entry in [entry for entry in self._entries if entry.name == name]:
            self._load(entry)
        return self._objects.get(name)

    def all(self) -> dict[str, T]:
        """Return all objects by name; errors are as for `find`."""
        for entry in [*self._entries]:
            self._load(entry)
        return dict(self._objects)

    @cached_property
    def _entries(self) -> list[EntryPoint]:
        """Entry points that are not loaded yet."""
        return [*entry_points(group=self.group)]

    def _load(self, entry: EntryPoint) -> None:
        place = f"{self.group}: {shown(entry.name)} = {shown(entry.value)}"
        try:
            value = entry.load()
        except ConfigError:
            raise  # a decorator refused it
        except Exception as error:
            problem = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(f"{place} cannot be imported ({problem}); correct or uninstall its package") from error
        if self._origins.get(entry.name) != place_of(value):
            if not self._accepts(value):
                raise ConfigError(f"{place} is not of that kind; correct or uninstall its package")
            self.register(entry.name, value, entry.value)
        self._entries.remove(entry)


@contextmanager
def failures_named(plugin: str) -> Iterator[None]:
    """Turn a failure of a user's code into a ConfigError that names the plug-in; system errors have a line already."""
    try:
        yield
    except (JaxtraceError, OSError, MemoryError):
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"{plugin}: fails ({problem}); correct the plug-in") from error


def place_of(code: object) -> str:
    """Return the module and the name of a function or a class; "" for another object."""
    name = getattr(code, "__qualname__", None)
    return f"{getattr(code, '__module__', '')}.{name}" if name else ""
