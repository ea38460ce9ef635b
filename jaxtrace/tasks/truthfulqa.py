"""TruthfulQA: 817 questions that people often answer falsely (Lin, Hilton and Evans 2021)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import DataRow, read_csv, read_parquet, take

REPO, FILE = "truthfulqa/truthful_qa", "generation/validation-00000-of-00001.parquet"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the questions; `meta` holds every other column, the answers as lists.

    Args:
      path: TruthfulQA.csv as its authors publish it, or the hub's Parquet file; None fetches that file from the hub
        (data set "truthfulqa/truthful_qa").
      limit: maximum number of questions; None for all.

    Raises:
      PromptError: the file cannot be fetched or read, lacks a column, or has an empty question.
    """
    path = path or fetch(REPO, FILE, "truthfulqa")
    rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    return take(_prompts(path, rows), limit, path)


def split_answers(answers: str) -> list[str]:
    """Return the answers of a cell of TruthfulQA.csv, which ";" separates."""
    return [answer.strip() for answer in answers.split(";") if answer.strip()]


def _prompts(path: Path, rows: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[Prompt]:
    for index, (place, row) in enumerate(rows):
        if missing := [name for name in _Row.model_fields if name not in row]:
            raise PromptError(f"{path}: lacks the column '{missing[0]}'; name a copy of TruthfulQA.csv")
        if not row["question"].strip():
            raise PromptError(f"{path}, {place}: an empty question; delete the row")
        meta = {name: row[name] for name in _Row.model_fields if name != "question"}
        yield Prompt(text=row["question"], id=f"truthfulqa-{index:04d}", meta=meta)


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line, cells in read_csv(path):
        row: dict[str, Any] = {name.lower().replace(" ", "_"): cell for name, cell in cells.items()}
        for name in row.keys() & {"correct_answers", "incorrect_answers"}:
            row[name] = split_answers(row[name])
        yield f"line {line}", row


class _Row(DataRow):
    type: str
    category: str
    question: str
    best_answer: str
    correct_answers: list[str]
    incorrect_answers: list[str]
    source: str


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in read_parquet(path, _Row, "no question with its answers", "name a copy of TruthfulQA"):
        yield f"row {number}", row.model_dump()
