"""Wordings of MMLU in the published form of Entropy-Lens: read from its data manager, a Python file that is not run.

The sentences themselves are not part of jaxtrace. The form: a method `get_STYLE_prompt` for each style, which puts a
text together from string literals, `row.subject`, `row.question` and, in a loop, the choices after `chr(65 + i)`.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtrace.documents import MAX_JSON, read_bytes
from jaxtrace.errors import PromptError, first_line

MANAGER = "data_manager.py"
METHOD = re.compile(r"get_(\w+)_prompt")
ADVICE = "name a copy of the published repository"


@dataclass(frozen=True)
class Wording:
    """Text of a question in one style.

    Attributes:
      parts: templates of the text's parts; True beside one that is written once for each choice.
    """

    parts: tuple[tuple[str, bool], ...]

    def text(self, subject: str, question: str, choices: Mapping[str, str]) -> str:
        """Return the text of a question whose choices are given by letter."""
        fields = {"subject": subject, "question": question}
        return "".join(
            "".join(template.format(**fields, letter=letter, choice=choice) for letter, choice in choices.items())
            if repeated
            else template.format(**fields)
            for template, repeated in self.parts
        )


def read_wordings(path: Path) -> dict[str, Wording]:
    """Return the wordings of a data manager by style, in the file's order.

    Raises:
      PromptError: the file cannot be read, is no Python, has no such method, or puts a text together in another way.
    """
    content = read_bytes(path, MAX_JSON, PromptError, ADVICE)
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(content)
        methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        wordings = {
            name[1]: Wording(tuple(_parts(path, method.body)))
            for method in methods
            if (name := METHOD.fullmatch(method.name))
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PromptError(f"{path}: not Python ({first_line(error)}); {ADVICE}") from None
    if not wordings:
        raise PromptError(f"{path}: has no method get_STYLE_prompt; {ADVICE}")
    return wordings


def _parts(path: Path, body: list[ast.stmt], choice: str | None = None) -> Iterator[tuple[str, bool]]:
    """Yield the templates of statements; `choice` is the name of the choice inside a loop."""
    for number, node in enumerate(body):
        first = choice is None and not any(isinstance(other, ast.Assign | ast.AugAssign) for other in body[:number])
        if (isinstance(node, ast.Assign) and first) or (
            isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add) and not first
        ):
            yield _template(path, node.value, choice), choice is not None
        elif isinstance(node, ast.For) and choice is None and not node.orelse:
            names = [name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)]
            yield from _parts(path, node.body, names[-1] if names else "")
        elif not isinstance(node, ast.Pass) and not _is_docstring(node) and not _returns_text(node, body):
            raise _unlike(path, node)


def _template(path: Path, node: ast.expr, choice: str | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(path, part, choice) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(path, node.left, choice) + _template(path, node.right, choice)
    if isinstance(node, ast.FormattedValue) and node.format_spec is None and node.conversion == -1:
        return _template(path, node.value, choice)
    if isinstance(node, ast.Attribute) and node.attr in ("subject", "question"):
        return f"{{{node.attr}}}"
    if choice is not None and isinstance(node, ast.Name) and node.id == choice:
        return "{choice}"
    if choice is not None and isinstance(node, ast.Call) and ast.unparse(node).startswith("chr(65 + "):
        return "{letter}"
    raise _unlike(path, node)


def _returns_text(node: ast.stmt, body: list[ast.stmt]) -> bool:
    """Return whether a statement is the method's last one and returns a variable."""
    return isinstance(node, ast.Return) and node is body[-1] and isinstance(node.value, ast.Name)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _unlike(path: Path, node: ast.stmt | ast.expr) -> PromptError:
    return PromptError(f"{path}, line {node.lineno}: puts a prompt together in another way than published; {ADVICE}")
