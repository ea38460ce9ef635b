"""MMLU in four styles, by which Entropy-Lens (arXiv 2502.16570, v2) tells right answers from wrong ones."""

from collections.abc import Iterator
from pathlib import Path

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.mmlu import FILE, REPO, read_questions
from jaxtrace.tasks.reading import take

ASKED = "Subject: {subject}\nQuestion: {question}\nChoices:\n{choices}\nAnswer:"
# The published study names the styles; only the base's layout is known, and the other requests are in our words.
STYLES = {
    "base": ASKED,
    "instruct": f"Answer the following multiple-choice question with the letter of the right choice.\n\n{ASKED}",
    "thinking": f"Think carefully about each choice, then give the letter of the right one.\n\n{ASKED}",
    "humble": f"Give the letter of the right choice. You may well be unsure; then give your best guess.\n\n{ASKED}",
}
LONGEST = 1000  # characters of a question; longer ones are left out


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Loads each question of MMLU in the four `STYLES`, but for questions of more than 1,000 characters.

    `meta` holds what the task `mmlu` gives, `style`, and `question`, the same for the four prompts of a question.

    Args:
      path: as the task `mmlu` takes it.
      limit: how many prompts at most; None for all.

    Raises:
      PromptError: a file cannot be fetched or read, or a row is no question with four choices and an answer.
    """
    path = path or fetch(REPO, FILE, "mmlu-styles")
    return take(_prompts(path), limit, path)


def _prompts(path: Path) -> Iterator[Prompt]:
    for asked in read_questions(path):
        if len(asked.text) > LONGEST:
            continue
        words = {"subject": asked.subject.replace("_", " "), "question": asked.text, "choices": asked.listed}
        for style, layout in STYLES.items():
            meta = asked.meta | {"style": style, "question": asked.id}
            yield Prompt(text=layout.format(**words), id=f"{asked.id}-{style}", meta=meta)
