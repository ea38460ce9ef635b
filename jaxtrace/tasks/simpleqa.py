"""SimpleQA: short questions of fact with one short answer each (Wei et al. 2024)."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, JsonValue, TypeAdapter

from jaxtrace.documents import decode_json
from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import read_csv, take

REPO, FILE = "basicv8vc/SimpleQA", "simple_qa_test_set.csv"
LONGEST = 10_000  # characters of a row's metadata; the published rows have up to 2,371
METADATA = TypeAdapter(dict[str, JsonValue], config=ConfigDict(strict=True))
MALFORMED = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)  # what Python's parser raises
COLUMNS = ("metadata", "problem", "answer")


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the questions; `meta` holds the answer, the topic, the kind of answer and its sources.

    Args:
      path: simple_qa_test_set.csv as its authors publish it; None fetches a copy from the hub (data set
        "basicv8vc/SimpleQA").
      limit: maximum number of questions; None for all.

    Raises:
      PromptError: the file cannot be fetched or read, lacks a column, or has a row without a question or metadata.
    """
    path = path or fetch(REPO, FILE, "simpleqa")
    return take(_prompts(path), limit, path)


def _prompts(path: Path) -> Iterator[Prompt]:
    for index, (line, row) in enumerate(read_csv(path)):
        if missing := [name for name in COLUMNS if name not in row]:
            raise PromptError(f"{path}: lacks the column '{missing[0]}'; name a copy of simple_qa_test_set.csv")
        if not row["problem"].strip():
            raise PromptError(f"{path}, line {line}: an empty question; delete the row")
        try:
            meta = {"answer": row["answer"], **_read_metadata(row["metadata"])}
        except MALFORMED as error:
            raise PromptError(f"{path}, line {line}: its metadata is not a Python dict; delete the row") from error
        yield Prompt(text=row["problem"], id=f"simpleqa-{index:04d}", meta=meta)


def _read_metadata(text: str) -> dict[str, Any]:
    """Return the dict of texts, numbers and lists that a text writes in Python's syntax; raises one of `MALFORMED`."""
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters")
    metadata = METADATA.validate_python(ast.literal_eval(text))
    decode_json(json.dumps(metadata))
    return metadata
