"""Program that renders chat templates in a process that can be ended, since a template may loop or grow forever.

It reads one JSON request per line and writes one JSON reply per line, both in ASCII. It imports Jinja and the standard
library alone, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, meta
from jinja2.ext import Extension
from jinja2.nodes import Name, Node, Test
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

GROWTH = 4
GIVEN = {"messages", "add_generation_prompt", "raise_exception", "strftime_now"}  # variables that a caller cannot set


def main(seconds: float, characters: int, memory: int) -> None:
    """Answer requests until standard input ends, as it does with the parent process.

    Args:
      seconds: most wall time of a request; the kernel then ends this process, also within C code.
      characters: most characters of a rendered text, to which `GROWTH` times the length of its messages is added.
      memory: most bytes that templates may allocate, where the system limits memory (Linux).
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the parent, which may still need a prompt
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        reply = _reply(line, characters, memory)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


def _reply(line: bytes, characters: int, memory: int) -> str:
    """Return the "text" of messages, the "error" of the template, or the "limit" that it exceeds, as JSON."""
    try:
        return json.dumps(_render(characters=characters, **json.loads(line)))
    except MemoryError:
        return json.dumps({"limit": f"needs more than {memory >> 20} MiB"})
    except Exception as error:  # a template is a program of the checkpoint's author
        message = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return json.dumps({"error": f"the chat template fails ({message[:300]}); use raw prompts (--raw)"})


def _render(
    source: str,
    messages: list[dict[str, Any]],
    special_tokens: dict[str, str],
    arguments: dict[str, Any],
    date: str,
    characters: int,
) -> dict[str, str]:
    program, variables, own = _compiled(source)
    if unknown := arguments.keys() - variables:
        known = ", ".join(sorted(variables - own - special_tokens.keys())) or "none"
        return {"error": f"the chat template has no argument {min(unknown)!r}; it has: {known}"}
    now = datetime.fromisoformat(date)
    values = {"tools": None, "documents": None, **special_tokens, **arguments, "strftime_now": now.strftime}
    most = characters + GROWTH * len(json.dumps([messages, arguments], ensure_ascii=False))
    pieces, size = [], 0
    for piece in program.generate(messages=messages, add_generation_prompt=True, **values):
        size += len(piece)
        if size > most:
            return {"limit": f"writes more than {most:,} characters"}
        pieces.append(piece)
    text = "".join(pieces)
    text.encode()  # the tokenizer takes no lone surrogates
    return {"text": text}


@functools.lru_cache(maxsize=4)
def _compiled(source: str) -> tuple[Template, set[str], set[str]]:
    """Return a template, its arguments, and those that it sets without a look at what it was given."""
    environment = _environment()
    tree = environment.parse(source)
    tested = {test.node.name for test in tree.find_all(Test) if isinstance(test.node, Name)}
    own = {name.name for name in tree.find_all(Name) if name.ctx == "store"} - tested
    return environment.from_string(source), meta.find_undeclared_variables(tree) - GIVEN, own


class _Generation(Extension):
    """The tags {% generation %} … {% endgeneration %}, which mark answers for training; their content is kept."""

    tags = frozenset({"generation"})  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.cache
def _environment() -> Environment:
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


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
