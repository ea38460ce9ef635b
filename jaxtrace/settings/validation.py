"""Checks that turn a mapping of fields into settings, or into one line that says what to change."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from jaxtrace.errors import ConfigError
from jaxtrace.files import path_exists

BRANCH = re.compile(r"int|float|str|bool|.*[\[-].*")  # of a union, in pydantic's path: "windows.constrained-int"
LONGEST_VALUE = 60  # characters of a wrong value that a message shows

T = TypeVar("T", bound=BaseModel)


class StrictModel(BaseModel):
    """Base of settings: frozen, refuses unknown fields, NaN and infinity; its validator is built at first use."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


def _split_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _split_pairs(value: Any) -> Any:
    pairs = _split_commas(value)
    if not isinstance(pairs, list | tuple):
        return pairs
    return [pair.split(":") if isinstance(pair, str) else pair for pair in pairs]


# A lone text or path where several are allowed: "entropy" for ("entropy",).
ONE_OR_MORE = BeforeValidator(lambda value: (value,) if isinstance(value, str | Path) else value)
COMMA_SEPARATED = BeforeValidator(_split_commas)  # "0,8" for (0, 8)
PAIRS = BeforeValidator(_split_pairs)  # "3:2,5:0" for ((3, 2), (5, 0))


def origin(file: Path | None, overrides: Mapping[str, Any]) -> Callable[[str], str]:
    """Return the function from a field's name to the place of its value: the YAML file, or "settings" if overridden."""
    return lambda field: "settings" if file is None or field in overrides else str(file)


def validated(kind: type[T], fields: Mapping[str, Any], place: str | Callable[[str], str]) -> T:
    """Return a pydantic model of some fields.

    Args:
      kind: class of the model.
      fields: values by the names of the model's fields.
      place: place that the message names, such as a file; or a function of a field's name ("" for several fields).

    Raises:
      ConfigError: a field is unknown, missing or out of range; one line names the place, the first wrong field, its
        value and what to do.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        path = [part for part in map(str, first["loc"]) if not BRANCH.fullmatch(part)]
        where = place if isinstance(place, str) else place(path[0] if path else "")
        raise ConfigError(f"{where}: {_problem(kind, first, '.'.join(path))}") from None


def set_checked(instance: Any, kind: type[BaseModel], place: str) -> None:
    """Replace the fields of a frozen dataclass by the checked values of the settings with these names.

    Raises:
      ConfigError: a value is out of range; see `validated`.
    """
    given = {name: vars(instance)[name] for name in kind.model_fields if name in vars(instance)}
    checked = validated(kind, given, place)
    vars(instance).update({name: getattr(checked, name) for name in given})


def check_unicode(fields: Mapping[str, Any], place: str) -> None:
    """Raise ConfigError for the first field with a text that no file could hold: bytes of a shell that are not UTF-8.

    Args:
      fields: values by the names of the fields.
      place: place that the message names.
    """
    for name, value in fields.items():
        try:
            json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{place}: {name} is {value!r:.60}; write it in UTF-8") from None
        except (ValueError, RecursionError):  # contains itself or is nested too deeply, which the model refuses
            continue


def _problem(kind: type[BaseModel], error: Any, field: str) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return (
            f"{field}: no such setting{did_you_mean(field, kind.model_fields)}there are: {', '.join(kind.model_fields)}"
        )
    if error["type"] == "missing":
        return f"{field} is missing; give it"
    if not field:
        return message
    value = error["input"]
    value = value if isinstance(value, str) and len(value.split()) == 1 else _shown(value)
    if len(value) > LONGEST_VALUE:
        value = f"{value[:LONGEST_VALUE]}…"
    advice = message.replace("Input should be", "it must be", 1).replace("Input should", "it must", 1)
    advice = advice.replace("String should", "it must", 1)
    return f"{field} is {value}; {advice[0].lower()}{advice[1:]}"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'NAME'? " with the known name that a short one begins, or the nearest; "; " for none."""
    known = list(known)
    near = [each for each in known if each.startswith(name)] or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}? " if near else "; "


def check_paths(settings: BaseModel) -> None:
    """Raise ConfigError for the first path of some settings that does not exist, of those that must.

    A field says so with "exists" in its `json_schema_extra`, whose text is the message's advice. URLs are not checked.
    """
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        advice = extra.get("exists") if isinstance(extra, dict) else None
        value = getattr(settings, name)
        for path in value if isinstance(value, tuple) else (value,):
            if advice and path is not None and "://" not in str(path) and not path_exists(path):
                raise ConfigError(f"{path}: No such file or directory; {advice}")
