"""Commands whose options are made from the fields of settings: names, help texts, defaults and groups."""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jaxtrace.errors import ConfigError
from jaxtrace.settings.groups import ORDER
from jaxtrace.settings.prompt import KEY_VALUES
from jaxtrace.settings.validation import COMMA_SEPARATED, PAIRS, check_paths, check_unicode, did_you_mean, validated

# Why not a library: cyclopts 5.5 validates the command line before the YAML file is read, and so refuses settings that
# the file completes; its --help took 0.95 s of CPU for four fields, where importing pydantic and argparse takes 0.5 s.
FLAGS = "Each flag --NAME also has a form --no-NAME."
PLACEHOLDERS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}

T = TypeVar("T", bound=BaseModel)
Fields = type[BaseModel] | tuple[type[BaseModel], Sequence[str]]  # settings, or some fields of settings


class Arguments:
    """Options that a user gave, by the settings that they belong to; values are texts and flags."""

    def __init__(self, command: str, values: Mapping[type[BaseModel], dict[str, Any]]) -> None:
        self._command, self._values = command, values

    def fields(self, kind: type[BaseModel]) -> dict[str, Any]:
        """Return the fields of some settings that the user gave, unchecked."""
        return self._values[kind]

    def settings(self, kind: type[T]) -> T:
        """Return checked settings; raises ConfigError for a wrong value or a path that does not exist."""
        check_unicode(self._values[kind], self._command)
        settings = validated(kind, self._values[kind], self._command)
        check_paths(settings)
        return settings


@dataclass(frozen=True)
class Command:
    """A verb of the command line.

    Attributes:
      name: words of the verb, such as "study lens".
      text: help text; its first line is the summary.
      function: function that executes the verb.
      settings: settings whose fields are the verb's options.
      example: command line that works, for `--help`.
      notes: function that returns further lines of `--help`.
    """

    name: str
    text: str
    function: Callable[[Arguments], None]
    settings: tuple[Fields, ...]
    example: str
    notes: Callable[[], str] = lambda: ""

    @property
    def summary(self) -> str:
        """First line of the help text."""
        return self.text.splitlines()[0]

    def execute(self, words: Sequence[str]) -> None:
        """Execute the verb with the words behind it.

        Raises:
          JaxtraceError: an option is unknown or wrong, or the verb fails.
        """
        parser = self.parser()
        parsed, unknown = parser.parse_known_intermixed_args(list(words))
        for word in unknown:
            options = [option for action in parser._actions for option in action.option_strings]
            advice = f"{did_you_mean(word.partition('=')[0], options)}see {parser.prog} --help"
            problem = f"no option {word}" if word.startswith("-") else f"{word!r} is one argument too many"
            raise ConfigError(f"{self.name}: {problem}{advice}")
        values = {
            kind: {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}
            for kind, names in self.fields()
        }
        self.function(Arguments(self.name, values))

    def fields(self) -> Iterator[tuple[type[BaseModel], list[str]]]:
        """Yield each class of settings with the names of the fields that are options here."""
        for part in self.settings:
            kind, names = part if isinstance(part, tuple) else (part, part.model_fields)
            yield kind, [name for name in names if _extra(kind.model_fields[name]).get("option", "") is not None]

    def parser(self) -> argparse.ArgumentParser:
        """Return the parser of the verb's options."""
        fields = {name: kind.model_fields[name] for kind, names in self.fields() for name in names}
        places = "".join(
            f" {_extra(field)['positional']}" for field in fields.values() if "positional" in _extra(field)
        )
        parser = _Parser(
            prog=f"jaxtrace {self.name}",
            usage=f"jaxtrace {self.name}{places} [options]",
            description=self.text,
            epilog=lambda: "\n\n".join(filter(None, (self.notes(), FLAGS, f"example:\n  {self.example}"))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        for group in dict.fromkeys([None, *ORDER, *(_extra(field).get("group") for field in fields.values())]):
            members = {name: field for name, field in fields.items() if _extra(field).get("group") == group}
            if members:
                section = parser.add_argument_group(group) if group else parser
                for name, field in members.items():
                    _add(section, name, field)
        return parser


Member = Callable[[], "Command | Group"]  # imports a verb or group when it is used


@dataclass(frozen=True)
class Group:
    """Verbs under one word, or all verbs.

    Attributes:
      name: words of the group; "" for all verbs.
      summary: help text in one line.
      members: function that returns the verbs of the group by name.
    """

    name: str
    summary: str
    members: Callable[[], Mapping[str, Member]]

    def execute(self, words: Sequence[str]) -> None:
        """Execute the verb that the first word names, or print the group's help."""
        members, prog = self.members(), f"jaxtrace {self.name}".strip()
        if not words or words[0] in ("-h", "--help"):
            print(f"usage: {prog} VERB [options]\n\n{self.summary}\n\nverbs:")
            width = max(40, shutil.get_terminal_size().columns - 2)
            for name, member in members.items():
                print(
                    textwrap.fill(member().summary, width, initial_indent=f"  {name:<15}", subsequent_indent=" " * 17)
                )
            print(f"\n{prog} VERB --help shows a verb's options.")
            return
        if words[0] not in members:
            place, advice = f"{self.name}: " if self.name else "", did_you_mean(words[0], members)
            raise ConfigError(f"{place}no verb {words[0]!r}{advice}there are: {', '.join(members)}")
        members[words[0]]().execute(words[1:])


def command(
    name: str, *settings: Fields, example: str, notes: Callable[[], str] = lambda: ""
) -> Callable[[Callable[[Arguments], None]], Command]:
    """Return a decorator that makes a command of a function, whose docstring is the help text."""

    def decorate(function: Callable[[Arguments], None]) -> Command:
        return Command(name, inspect.cleandoc(function.__doc__ or ""), function, settings, example, notes)

    return decorate


class _Parser(argparse.ArgumentParser):
    def __init__(self, *, epilog: Callable[[], str], **options: Any) -> None:
        super().__init__(**options)
        self._make_epilog = epilog

    def format_help(self) -> str:
        self.epilog = self._make_epilog()  # only now: the list of tasks imports every task
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        verb = self.prog.removeprefix("jaxtrace ")
        raise ConfigError(f"{verb}: {message.removeprefix('argument ')}; see {self.prog} --help")


def _add(section: Any, name: str, field: FieldInfo) -> None:
    """Add the option or positional argument of a field."""
    extra, help_text = _extra(field), _help(field).replace("%", "%%")
    several = get_origin(_plain(field.annotation)) in (tuple, dict) and not {COMMA_SEPARATED, PAIRS} & {*field.metadata}
    if placeholder := extra.get("positional"):
        section.add_argument(name, nargs="*" if several else "?", metavar=placeholder, help=help_text)
        return
    option = extra.get("option") or f"--{name.replace('_', '-')}"
    if _plain(field.annotation) is bool:
        section.add_argument(option, dest=name, action="store_true", help=help_text)
        section.add_argument(f"--no-{option[2:]}", dest=name, action="store_false", help=argparse.SUPPRESS)
        return
    action = "append" if several else "store"
    kind = _unescaped if extra.get("escapes") else str
    section.add_argument(option, dest=name, action=action, type=kind, metavar=_placeholder(field), help=help_text)


def _unescaped(text: str) -> str:
    r"""Return a text with its escapes \n, \t and \\ resolved: within a shell's quotes, \n is a backslash and an n."""
    return re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _help(field: FieldInfo) -> str:
    """Return a field's description and, unless the description states it, its default."""
    text, default = field.description or "", field.default
    if field.is_required():
        return f"{text} Required."
    if "Default:" in text or default is None or default is False or default in ((), ""):
        return text
    if isinstance(default, tuple):
        default = ",".join(str(entry) for entry in default)
    elif isinstance(default, str) and len(default.split()) != 1:
        default = repr(default)
    return f"{text} Default: {default}."


def _placeholder(field: FieldInfo) -> str:
    plain = _plain(field.annotation)
    if get_origin(plain) is Literal:
        return "|".join(map(str, get_args(plain)))
    if PAIRS in field.metadata:
        return "N:N,…"
    if KEY_VALUES in field.metadata:
        return "KEY=VALUE"
    if get_origin(plain) is tuple:
        plain = _plain(get_args(plain)[0])
    return PLACEHOLDERS.get(plain, "TEXT") + ",…" * (COMMA_SEPARATED in field.metadata)


def _plain(annotation: Any) -> Any:
    """Return a type without `Annotated` and `None`; the first type of a union."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _plain(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation
