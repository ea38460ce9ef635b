"""MMLU: questions of 57 school and college subjects with four choices each (Hendrycks and others, 2021)."""

from collections.abc import Iterator
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.prompt import Prompt
from jaxtrace.tasks.reading import read_cells, read_parquet, take

REPO, FILE = "cais/mmlu", "all/test-00000-of-00001.parquet"
HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
LETTERS = "ABCD"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Loads the questions, each with its choices below it and "Answer:" last; `meta` holds subject, choices, answer.

    Args:
      path: a subject's CSV file, with a header and answers 0 to 3 or, as the authors publish it, without and A to D; a
        directory of them, read in the order of their names; or the Parquet file of the hub. None fetches the test set
        from the hub (the data set "cais/mmlu").
      limit: how many questions at most; None for all.

    Raises:
      PromptError: a file cannot be fetched or read, or a row is no question with four choices and an answer.
    """
    path = path or fetch(REPO, FILE, "mmlu")
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    rows = (row for file in files for row in (_parquet(file) if file.suffix == ".parquet" else _csv(file)))
    return take((_prompt(index, *row) for index, row in enumerate(rows)), limit, path)


def _prompt(index: int, place: str, subject: str, question: str, choices: list[str], answer: str) -> Prompt:
    answer = LETTERS[int(answer)] if answer in ("0", "1", "2", "3") else answer
    if not question.strip() or len(choices) != len(LETTERS) or answer not in list(LETTERS):
        raise PromptError(f"{place}: no question with four choices and an answer; name a copy of MMLU")
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    meta = {"subject": subject, "choices": choices, "answer": answer}
    return Prompt(text=f"{question.strip()}{listed}\nAnswer:", id=f"mmlu-{index:05d}", meta=meta)


def _csv(path: Path) -> Iterator[tuple[str, str, str, list[str], str]]:
    subject = path.stem.rsplit("_", 1)[0]
    for line, cells in read_cells(path):
        if cells != HEADER:
            question, *choices = cells or [""]
            yield f"{path}, line {line}", subject, question, choices[:-1], "".join(choices[-1:])


def _parquet(path: Path) -> Iterator[tuple[str, str, str, list[str], str]]:
    for number, row in read_parquet(path):
        if missing := [name for name in ("subject", "question", "choices", "answer") if name not in row]:
            raise PromptError(f"{path}: lacks the column '{missing[0]}'; name a copy of MMLU")
        yield f"{path}, row {number}", row["subject"], row["question"], row["choices"], str(row["answer"])
