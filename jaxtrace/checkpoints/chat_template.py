"""Chat templates: Jinja programs of a checkpoint that format messages as one text."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, meta
from jinja2.ext import Extension
from jinja2.nodes import Name, Node, Test
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxtrace.errors import CheckpointError, PromptError, first_line
from jaxtrace.files import read_json, read_text

CLOCK = "strftime_now"  # function of a template that formats the current time
GIVEN = {"messages", "add_generation_prompt", "raise_exception", CLOCK}  # variables that a caller cannot set


class ChatTemplate:
    """A chat template.

    Attributes:
      source: program of the template.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    @classmethod
    def read(cls, directory: Path, settings: Mapping[str, Any]) -> ChatTemplate | None:
        """Read the template of a checkpoint; return None for a checkpoint without one.

        The first that exists is used: chat_template.jinja, an entry of tokenizer_config.json, chat_template.json. Of
        several named templates it is "default".

        Args:
          directory: directory of the checkpoint.
          settings: content of its tokenizer_config.json.

        Raises:
          CheckpointError: the template is no text.
        """
        file = directory / "chat_template.jinja"
        if file.exists():
            return cls(read_text(file, CheckpointError, "download it again"))
        stored = settings.get("chat_template")
        file = directory / "chat_template.json"
        if stored is None and file.exists():
            stored = read_json(file, CheckpointError, "download it again", finite=False).get("chat_template")
        if isinstance(stored, list):
            stored = {str(named.get("name")): named.get("template") for named in stored if isinstance(named, dict)}
        if isinstance(stored, dict):
            # Without a default the template fails when it is used, so that raw prompts still work.
            names = ", ".join(map(str, stored))
            stored = stored.get("default", f"{{{{ raise_exception({f'none of {names} is named default'!r}) }}}}")
        if not isinstance(stored, str | None):
            raise CheckpointError(f"{directory}: the chat template {stored!r} is no text; download it again")
        return cls(stored) if stored else None

    @property
    def hash(self) -> str:
        """SHA-256 of the program."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def reads_clock(self) -> bool:
        """True if the template may print the current time."""
        return CLOCK in self.source

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        special_tokens: Mapping[str, str],
        arguments: Mapping[str, Any],
        date: datetime,
    ) -> str:
        """Return the text of messages, up to the beginning of the answer.

        Args:
          messages: messages with their roles.
          special_tokens: texts of the tokenizer's special tokens by name, such as "bos_token".
          arguments: further variables of the template, which override special tokens.
          date: current time for the template.

        Raises:
          PromptError: the template has no such argument, or fails.
        """
        try:
            if unknown := arguments.keys() - (self._variables - GIVEN):
                known = ", ".join(sorted(self._variables - GIVEN - self._own - special_tokens.keys())) or "none"
                raise PromptError(f"the chat template has no argument {min(unknown)!r}; it has: {known}")
            variables = {**special_tokens, **arguments, CLOCK: date.strftime}
            variables = {"tools": None, "documents": None, **variables}
            return self._program.render(messages=messages, add_generation_prompt=True, **variables)
        except PromptError:
            raise
        except Exception as error:  # a template is a program of the checkpoint's author
            raise PromptError(f"the chat template fails ({first_line(error)}); use raw prompts (--raw)") from None

    @functools.cached_property
    def _program(self) -> Any:
        return _environment().from_string(self.source)

    @functools.cached_property
    def _variables(self) -> set[str]:
        return meta.find_undeclared_variables(_environment().parse(self.source))

    @functools.cached_property
    def _own(self) -> set[str]:
        """Variables that the template sets without a look at what it was given."""
        tree = _environment().parse(self.source)
        tested = {test.node.name for test in tree.find_all(Test) if isinstance(test.node, Name)}
        return {name.name for name in tree.find_all(Name) if name.ctx == "store"} - tested


class _Generation(Extension):
    """The tags {% generation %} … {% endgeneration %}, which mark answers for training; their content is kept."""

    tags = frozenset({"generation"})  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Return Jinja's sandbox with the settings and functions that transformers gives to templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
