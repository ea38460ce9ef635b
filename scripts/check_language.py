"""Count what the project's writing rules ban: phrases, and docstring entries without a subject.

`python scripts/check_language.py [PATH …]` prints each hit as FILE:LINE: PHRASE: TEXT and exits with status 1 if
there is a hit. It reads docstrings, comments, string literals and the names of tests.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("jaxtrace", "kernels", "benchmarks", "tests", "scripts")

# Each phrase beside what to write instead.
PHRASES = {
    r"(?:is|are|was|were|be|can|could|not|to) (?:be )?had(?= in| from|\b[.,;:]| where| here)": "is available, supports",
    r"(?:goes|go|going|went|gone) on with": "resumes, continues",
    r"(?:leaves?|leaving|left) out": "excludes, ablates, omits",
    r"so many(?!-| that)": "the number of",
    r"every so many-th": "every n-th",
    r"how many there are|how many of them": "the number of",
    r"dear(?:er|est|ly)?": "expensive",
    r"mend(?:s|ed|ing|able)?": "fix, user-fixable",
    r"nothing of meaning": "undefined values",
    r"own word": "the checkpoint's generation config",
    r"rid of": "delete, remove",
    r"lets? go(?: of)?|let go": "release, drop",
    r"of nothing(?: yet)?": "empty",
    r"alike": "equal, the same",
    r"in no hurry|in a hurry": "say which optimisation level",
    r"by the way|for oneself|for itself": "say the noun",
    r"be it|were it|were there|is there none": "if …",
    r"bespeaks?|beget|begets|thereof|therein|thereby|whereof|wherein|wherefrom": "a modern word",
    r"needs? be|if need be": "if necessary",
    r"(?:is|are|was|were) begun|was not begun|begun for": "started, initialised",
    r"what is there|what there is": "the available …",
    r"where there (?:is|are) none": "if there is none",
    r"one's own|of one's own": "your own",
    r"how (?:a|the) \w+(?: \w+)? (?:is|are) had": "loads",
    r"it is not to be": "is unavailable",
    r"asks? (?:of|for) nothing": "say the noun",
    r"stands? for nothing": "say the noun",
}
PHRASE = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in PHRASES), re.IGNORECASE)

# An entry of a docstring, or a setting's description, starts with what the thing is.
HEADLESS = r"(?:of|that|those|as|as many|how many|so many|what|where|when|whose|with)\b"
SECTION = re.compile(r"^(?:Args|Arguments|Attributes|Returns|Raises|Yields|Keyword args|Fields):$")
ENTRY = re.compile(rf"^[\w*.`, /\[\]\"']+: {HEADLESS}")
FIRST = re.compile(rf"^{HEADLESS}", re.IGNORECASE)
DESCRIPTIONS = {"description", "help", "text", "definition", "summary"}

Hit = tuple[int, str, str]  # line, kind, text


def hits_of(source: str) -> Iterator[Hit]:
    """Yield what is banned in a module's source."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _phrases(node.value, node.lineno)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            yield from _entries(node)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from _phrases(node.name.replace("_", " "), node.lineno)
        if isinstance(node, ast.keyword) and node.arg in DESCRIPTIONS and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str) and FIRST.match(value):
                yield node.value.lineno, "description without a subject", value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from _phrases(token.string, token.start[0])


def _phrases(text: str, line: int) -> Iterator[Hit]:
    flat = re.sub(r"\s+", " ", text)  # a phrase may be broken over two lines
    for match in PHRASE.finditer(flat):
        yield line, f"'{match.group()}'", flat[max(0, match.start() - 40) : match.end() + 40]


def _entries(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) -> Iterator[Hit]:
    text = ast.get_docstring(node)
    if not text:
        return
    line = node.body[0].lineno
    if FIRST.match(text):
        yield line, "docstring without a subject", text.splitlines()[0]
    in_section = False
    for offset, entry in enumerate(text.splitlines()):
        if SECTION.match(entry):
            in_section = True
        elif entry and not entry.startswith(" "):
            in_section = False
        elif in_section and re.match(r"^  \S", entry) and ENTRY.match(entry.strip()):
            yield line + offset, "entry without a subject", entry.strip()


def main(paths: list[str]) -> int:
    """Print the hits in the given files and folders, the project's own rooms by default; return the exit status."""
    roots = [Path(path) for path in paths or ROOMS]
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*.py")))]
    count = 0
    for file in files:
        if file.resolve() == Path(__file__).resolve() or file.name == "test_check_language.py":
            continue  # they name the phrases
        for line, kind, text in hits_of(file.read_text(encoding="utf-8")):
            print(f"{file}:{line}: {kind}: {text}")
            count += 1
    print(f"{count} hit{'s' * (count != 1)} in {len(files)} files")
    return count > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
