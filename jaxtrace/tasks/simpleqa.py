"""SimpleQA: short questions of fact with one short answer each (Wei et al. 2024)."""

import ast
from collections.abc import Iterator
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import read_csv, take

REPO, FILE = "basicv8vc/SimpleQA", "simple_qa_test_set.csv"
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
            meta = {"answer": row["answer"], **ast.literal_eval(row["metadata"])}
        except (ValueError, SyntaxError, TypeError) as error:
            raise PromptError(f"{path}, line {line}: its metadata is not a Python dict; delete the row") from error
        yield Prompt(text=row["problem"], id=f"simpleqa-{index:04d}", meta=meta)
