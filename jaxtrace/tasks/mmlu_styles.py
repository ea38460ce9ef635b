"""MMLU in four styles, in which Entropy-Lens (arXiv 2502.16570, v2) classifies right and wrong answers."""

from collections.abc import Iterator
from pathlib import Path

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.mmlu import FILE, REPO, read_questions
from jaxtrace.tasks.reading import take

BASE = "Subject: {subject}\nQuestion: {question}\nChoices:\n{choices}\nAnswer:"
# The study published the names of the styles and the layout of the base; the other requests are our wording.
STYLES = {
    "base": BASE,
    "instruct": f"Answer the following multiple-choice question with the letter of the right choice.\n\n{BASE}",
    "thinking": f"Think carefully about each choice, then give the letter of the right one.\n\n{BASE}",
    "humble": f"Give the letter of the right choice. You may well be unsure; then give your best guess.\n\n{BASE}",
}
LONGEST = 1000  # characters of a question; longer questions are excluded


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return each question of MMLU in the four `STYLES`; questions of more than 1,000 characters are excluded.

    `meta` holds the fields of the task `mmlu`, `style`, and `question`, the id that a question's four prompts share.

    Args:
      path: path as for the task `mmlu`.
      limit: maximum number of prompts; None for all.

    Raises:
      PromptError: a file cannot be fetched or read, or a row is no question with four choices and an answer.
    """
    path = path or fetch(REPO, FILE, "mmlu-styles")
    return take(_prompts(path), limit, path)


def _prompts(path: Path) -> Iterator[Prompt]:
    for question in read_questions(path):
        if len(question.text) > LONGEST:
            continue
        fields = {
            "subject": question.subject.replace("_", " "),
            "question": question.text,
            "choices": question.lettered_choices,
        }
        for style, layout in STYLES.items():
            meta = question.meta | {"style": style, "question": question.id}
            yield Prompt(text=layout.format(**fields), id=f"{question.id}-{style}", meta=meta)
