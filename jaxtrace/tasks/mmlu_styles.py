"""MMLU in four styles, in which Entropy-Lens (arXiv 2502.16570, v2) classifies right and wrong answers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.mmlu import FILE, LETTERS, REPO, read_questions
from jaxtrace.tasks.published_wordings import MANAGER, Wording, read_wordings
from jaxtrace.tasks.reading import take

BASE = "Subject: {subject}\nQuestion: {question}\nChoices:\n"
# The names of the styles are published. Words and layouts are ours; a copy of the published code gives its own.
STYLES = {
    "base": "",
    "instruct": "Answer the following multiple-choice question with the letter of the right choice.\n\n",
    "thinking": "Think carefully about each choice, then give the letter of the right one.\n\n",
    "humble": "Give the letter of the right choice. You may well be unsure; then give your best guess.\n\n",
}
OURS = {
    style: Wording(((request + BASE, False), ("{letter}. {choice}\n", True), ("Answer:", False)))
    for style, request in STYLES.items()
}
LONGEST = 1000  # characters of a question; longer questions are excluded


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return each question of MMLU in four styles; questions of more than 1,000 characters are excluded.

    `meta` holds the fields of the task `mmlu`, `style`, and `question`, the id that a question's prompts share.

    Args:
      path: path as for the task `mmlu`, for our wordings; or a directory with the published `data_manager.py`, for its
        wordings of the questions in its folder `data` (the hub's without one).
      limit: maximum number of prompts; None for all.

    Raises:
      PromptError: a file cannot be fetched or read, or a row is no question with four choices and an answer.
    """
    if path is None or not (path / MANAGER).is_file():
        path = path or fetch(REPO, FILE, "mmlu-styles")
        return take(_prompts(path, OURS, spaced=True), limit, path)
    wordings, folder = read_wordings(path / MANAGER), path / "data"
    files = sorted(folder.glob("*.parquet"))
    if len(files) > 1:
        raise PromptError(f"{folder}: holds {len(files)} Parquet files; leave the test set alone there")
    data = files[0] if files else folder if folder.is_dir() else fetch(REPO, FILE, "mmlu-styles")
    return take(_prompts(data, wordings, spaced=False), limit, data)


def _prompts(path: Path, wordings: Mapping[str, Wording], *, spaced: bool) -> Iterator[Prompt]:
    """Yield the questions in each wording; `spaced` writes a subject with spaces for its underscores."""
    for question in read_questions(path):
        if len(question.text) > LONGEST:
            continue
        subject = question.subject.replace("_", " ") if spaced else question.subject
        choices = dict(zip(LETTERS, question.choices, strict=True))
        for style, wording in wordings.items():
            meta = question.meta | {"style": style, "question": question.id}
            yield Prompt(text=wording.text(subject, question.text, choices), id=f"{question.id}-{style}", meta=meta)
