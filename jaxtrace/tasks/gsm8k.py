"""GSM8K: arithmetic word problems of a few steps (Cobbe et al. 2021)."""

from collections.abc import Iterator
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.few_shot import Training
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import read_jsonl, read_parquet, take

REPO, FILE = "openai/gsm8k", "main/test-00000-of-00001.parquet"
TRAIN_FILE = "main/train-00000-of-00001.parquet"
MARK = "####"


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
    rows = read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path)
    for index, (place, row) in enumerate(rows):
        row = row if isinstance(row, dict) else {}
        question, solution = str(row.get("question", "")), str(row.get("answer", ""))
        if not question.strip() or MARK not in solution:
            raise PromptError(f"{path}, row {place}: no question with an answer after {MARK}; name a copy of GSM8K")
        worked, answer = solution.rsplit(MARK, 1)
        meta = {"answer": answer.strip().replace(",", ""), "solution": worked.strip()}
        yield Prompt(text=question, id=f"gsm8k-{index:04d}", meta=meta)


TRAINING = Training(
    split="train",
    fetch=lambda: fetch(REPO, TRAIN_FILE, "gsm8k"),
    answer=lambda prompt: f"{prompt.meta['solution']}\n{MARK} {prompt.meta['answer']}".lstrip(),
)
