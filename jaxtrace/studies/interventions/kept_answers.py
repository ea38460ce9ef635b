"""Answers on the disk, so that a study that was stopped need not ask for them again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxtrace.model import Model
from jaxtrace.studies.interventions.single_token_choices import Answers, Question


@dataclasses.dataclass(frozen=True)
class Kept:
    """Answers of one model to the same questions, a file for each set of layers that is left out.

    Attributes:
      folder: where they lie.
      of: a hash of the model and the questions; what has another is asked for again.
    """

    folder: Path
    of: str

    @classmethod
    def at(cls, folder: Path, model: Model, questions: Sequence[Question]) -> Kept:
        """Those of a model and some questions, in a folder that is made if need be."""
        asked = [(question.tokens.tolist(), question.options, question.answer) for question in questions]
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, hashlib.sha256(json.dumps([model.fingerprint(), asked]).encode()).hexdigest())

    def answers(self, layers: Sequence[int], ask: Callable[[], Answers]) -> Answers:
        """The answers without some layers, asked for where they are not there."""
        file = self.folder / f"without-{'-'.join(map(str, layers)) or 'none'}.npz"
        if file.exists():
            with np.load(file) as stored:
                if str(stored["of"]) == self.of:
                    return Answers(**{field.name: stored[field.name] for field in dataclasses.fields(Answers)})
        found = ask()
        unfinished = file.with_suffix(".partial.npz")
        np.savez(unfinished, of=self.of, **dataclasses.asdict(found))
        unfinished.replace(file)
        return found
