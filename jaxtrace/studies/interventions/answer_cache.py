"""Answers on disk, so that an interrupted study resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxtrace.files import atomic_file
from jaxtrace.model import Model
from jaxtrace.studies.interventions.single_token_choices import ChoiceAnswers, ChoiceQuestion


@dataclasses.dataclass(frozen=True)
class AnswerCache:
    """Answers of one model to the same questions, one file per set of ablated layers.

    Attributes:
      folder: directory of the files.
      key: hash of the model and the questions; a file with another key is replaced.
    """

    folder: Path
    key: str

    @classmethod
    def open(cls, folder: Path, model: Model, questions: Sequence[ChoiceQuestion]) -> AnswerCache:
        """Open the cache of a model's answers to some questions; creates the folder."""
        asked = [(question.tokens.tolist(), question.options, question.answer) for question in questions]
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, hashlib.sha256(json.dumps([model.fingerprint(), asked]).encode()).hexdigest())

    def answers(self, layers: Sequence[int], ask: Callable[[], ChoiceAnswers]) -> ChoiceAnswers:
        """Return the answers without some layers; `ask` gives them if they are not stored."""
        file = self.folder / f"without-{'-'.join(map(str, layers)) or 'none'}.npz"
        if file.exists():
            with np.load(file) as stored:
                if str(stored["of"]) == self.key:
                    return ChoiceAnswers(
                        **{field.name: stored[field.name] for field in dataclasses.fields(ChoiceAnswers)}
                    )
        answers = ask()
        with atomic_file(file) as stream:
            np.savez(stream, of=self.key, **dataclasses.asdict(answers))
        return answers
