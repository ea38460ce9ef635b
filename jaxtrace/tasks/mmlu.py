"""MMLU: questions of 57 school and college subjects with four choices each (Hendrycks et al. 2021)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.few_shot import Training
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import DataRow, read_cells, read_parquet, take

REPO, FILE = "cais/mmlu", "all/test-00000-of-00001.parquet"
DEV_FILE = "all/dev-00000-of-00001.parquet"
HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
LETTERS = "ABCD"
REQUEST = "Answer with the letter of the right choice alone: A, B, C or D."
PROBLEM, ADVICE = "no question with four choices and an answer", "name a copy of MMLU"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the questions, each followed by its choices, a request for the letter, and "Answer:".

    Without the request, a model that is asked through its chat template seldom begins with a letter. `meta` holds
    subject, choices and answer.

    Args:
      path: CSV file of a subject, with a header and answers 0 to 3 or, as the authors publish it, no header and answers
        A to D; directory of such files, read in the order of their names; or the hub's Parquet file. None fetches the
        test set from the hub (data set "cais/mmlu").
      limit: maximum number of questions; None for all.

    Raises:
      PromptError: a file cannot be fetched or read, or a row is no question with four choices and an answer.
    """
    path = path or fetch(REPO, FILE, "mmlu")
    return take((_prompt(question, f"{REQUEST}\nAnswer:") for question in read_questions(path)), limit, path)


def load_plain(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the questions as published evaluations ask them: without the request; all else is as for `load`."""
    path = path or fetch(REPO, FILE, "mmlu-plain")
    return take((_prompt(question, "Answer:") for question in read_questions(path)), limit, path)


@dataclass(frozen=True)
class MmluQuestion:
    """Question of MMLU.

    Attributes:
      id: name such as "mmlu-00007".
      subject: name such as "college_biology".
      text: text of the question.
      choices: four possible answers.
      answer: letter of the right choice.
    """

    id: str
    subject: str
    text: str
    choices: list[str]
    answer: str

    @property
    def lettered_choices(self) -> str:
        """Choices, one per line after their letters."""
        return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True))

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata of the question's prompts."""
        return {"subject": self.subject, "choices": self.choices, "answer": self.answer}


def read_questions(path: Path) -> Iterator[MmluQuestion]:
    """Yield the questions of a file, or of a directory's CSV files; arguments and errors as for `load`."""
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    rows = (row for file in files for row in (_parquet(file) if file.suffix == ".parquet" else _csv(file)))
    for index, (place, subject, text, choices, answer) in enumerate(rows):
        letter = LETTERS[int(answer)] if answer in ("0", "1", "2", "3") else answer
        if not text.strip() or len(choices) != len(LETTERS) or letter not in list(LETTERS):
            raise PromptError(f"{place}: {PROBLEM}; {ADVICE}")
        yield MmluQuestion(f"mmlu-{index:05d}", subject, text.strip(), choices, letter)


def _prompt(question: MmluQuestion, end: str) -> Prompt:
    text = f"{question.text}\n{question.lettered_choices}\n{end}"
    return Prompt(text=text, id=question.id, meta=question.meta)


def _csv(path: Path) -> Iterator[tuple[str, str, str, list[str], str]]:
    subject = path.stem.rsplit("_", 1)[0]
    for line, cells in read_cells(path):
        if cells != HEADER:
            question, *choices = cells or [""]
            yield f"{path}, line {line}", subject, question, choices[:-1], "".join(choices[-1:])


class _Row(DataRow):
    subject: str
    question: str
    choices: list[str]
    answer: int | str


def _parquet(path: Path) -> Iterator[tuple[str, str, str, list[str], str]]:
    for number, row in read_parquet(path, _Row, PROBLEM, ADVICE):
        yield f"{path}, row {number}", row.subject, row.question, row.choices, str(row.answer)


TRAINING = Training(
    split="dev",
    fetch=lambda: fetch(REPO, DEV_FILE, "mmlu"),
    answer=lambda prompt: prompt.meta["answer"],
    shared=("subject",),
)
