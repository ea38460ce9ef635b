"""Few-shot examples: solved problems of a task's training split, which precede each prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt

SPLITS = re.compile(r"(?<![a-z])(test|validation|val)(?![a-z])")  # words of file names: "x_test.csv", not "latest.csv"


@dataclass(frozen=True)
class Training:
    """Training split of a task.

    Attributes:
      split: word for it in the names of files: "train" in train.jsonl, where test.jsonl is the test split.
      fetch: function that returns the path of the hub's file.
      answer: function from a training prompt to the text of its right answer.
      shared: fields of `meta` that are equal in a prompt and its examples.
    """

    split: str
    fetch: Callable[[], Path]
    answer: Callable[[Prompt], str]
    shared: tuple[str, ...] = ()

    def path(self, data: Path | None) -> Path:
        """Return the path of the split that belongs to a task's data, which is beside it; None stands for the hub's.

        Raises:
          PromptError: there is no such file, or the hub cannot give it.
        """
        if data is None:
            return self.fetch()
        data = data.absolute()
        name, folder = SPLITS.sub(self.split, data.name), SPLITS.sub(self.split, data.parent.name)
        for path in (data.with_name(name), data.parent.with_name(folder) / name):
            # without the word in its name the path may be that of the test split itself
            if re.search(rf"(?<![a-z]){self.split}(?![a-z])", f"{path.parent.name}/{path.name}") and path.exists():
                return path
        raise PromptError(
            f"{data}: shots come from the {self.split} split, and no {name} is beside it; put it there, or drop shots"
        )


def with_shots(
    prompts: Sequence[Prompt], examples: Sequence[Prompt], training: Training, shots: int, *, chat: bool
) -> list[Prompt]:
    """Put solved examples before each prompt: the first ones of the training split, without the prompt itself.

    `meta` of a prompt then holds "shots", the names of its examples.

    Args:
      prompts: prompts of the task.
      examples: prompts of its training split.
      training: the split.
      shots: number of examples of each prompt.
      chat: True for turns of a chat (`messages`), False for blocks of text: "Question: …", "Answer: …".

    Raises:
      PromptError: the split has fewer examples for a prompt.
    """
    groups: dict[tuple[Any, ...], list[Prompt]] = {}
    for example in examples:
        groups.setdefault(tuple(example.meta[name] for name in training.shared), []).append(example)
    return [
        _with_examples(
            prompt, groups.get(tuple(prompt.meta[name] for name in training.shared), []), training, shots, chat
        )
        for prompt in prompts
    ]


def _with_examples(prompt: Prompt, group: Sequence[Prompt], training: Training, shots: int, chat: bool) -> Prompt:
    chosen = [example for example in group[: shots + 1] if example.text != prompt.text][:shots]
    if len(chosen) < shots:
        raise PromptError(
            f"shots is {shots}, and the {training.split} split has {len(chosen)} for {prompt.id}; give at most as many"
        )
    meta = prompt.meta | {"shots": [f"{training.split}/{example.id}" for example in chosen]}
    pairs = [(example.text or "", training.answer(example)) for example in chosen]
    text = prompt.text or ""
    if not chat:
        blocks = [f"{_open(question)} {answer}\n\n" for question, answer in pairs]
        return replace(prompt, text="".join(blocks) + _open(text), meta=meta)
    turns = [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    return replace(prompt, messages=(*turns, {"role": "user", "content": text}), meta=meta)


def _open(question: str) -> str:
    """Return a question as a text up to its answer."""
    return question if question.endswith("Answer:") else f"Question: {question}\nAnswer:"
