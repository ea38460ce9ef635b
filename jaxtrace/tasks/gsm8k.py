"""GSM8K: arithmetic word problems of a few steps (Cobbe et al. 2021)."""

from collections.abc import Iterator
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.few_shot import Training
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import DataRow, checked_row, read_jsonl, read_parquet, take

REPO, FILE = "openai/gsm8k", "main/test-00000-of-00001.parquet"
TRAIN_FILE = "main/train-00000-of-00001.parquet"
MARK = "####"
PROBLEM, ADVICE = f"no question with an answer after {MARK}", "name a copy of GSM8K"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the problems; `meta` holds the worked solution, and the number at its end as the answer.

    Args:
      path: test.jsonl or train.jsonl as the authors publish them, or the hub's Parquet file; None fetches the test set
        from the hub (data set "openai/gsm8k").
      limit: maximum number of problems; None for all.

    Raises:
      PromptError: the file cannot be fetched or read, or a row lacks a question or an answer after "####".
    """
    path = path or fetch(REPO, FILE, "gsm8k")
    return take(_prompts(path), limit, path)


def _prompts(path: Path) -> Iterator[Prompt]:
    for index, (place, row) in enumerate(_rows(path)):
        if not row.question.strip() or MARK not in row.answer:
            raise PromptError(f"{path}, row {place}: {PROBLEM}; {ADVICE}")
        worked, answer = row.answer.rsplit(MARK, 1)
        meta = {"answer": answer.strip().replace(",", ""), "solution": worked.strip()}
        yield Prompt(text=row.question, id=f"gsm8k-{index:04d}", meta=meta)


class _Row(DataRow):
    question: str
    answer: str


def _rows(path: Path) -> Iterator[tuple[int, _Row]]:
    if path.suffix == ".parquet":
        yield from read_parquet(path, _Row, PROBLEM, ADVICE)
        return
    for line, row in read_jsonl(path):
        yield line, checked_row(_Row, row, f"{path}, row {line}", PROBLEM, ADVICE)


TRAINING = Training(
    split="train",
    fetch=lambda: fetch(REPO, TRAIN_FILE, "gsm8k"),
    answer=lambda prompt: f"{prompt.meta['solution']}\n{MARK} {prompt.meta['answer']}".lstrip(),
)
