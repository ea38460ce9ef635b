"""Trained confidence on disk: confidence.json, which describes it, and confidence.safetensors, its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as to_bytes

from jaxtrace.documents import MIB, read_bytes, read_model
from jaxtrace.errors import StudyError
from jaxtrace.files import atomic_file
from jaxtrace.studies.confidence.features import answer_feature_names, token_feature_names
from jaxtrace.studies.confidence.model import Confidence, FittedClassifier
from jaxtrace.studies.confidence.scores import feature_estimators

JSON, TENSORS = "confidence.json", "confidence.safetensors"
MAX_TENSORS = 64 * MIB
ADVICE = "name a directory that jaxtrace confidence train wrote, or train again"


class _Description(BaseModel):
    """Content of confidence.json. Unknown fields are refused.

    Attributes:
      format: version of the two files. Networks of format 1 have other units; logistic regression is the same in both.
      hidden: units of the hidden layer; 0 for logistic regression.
      answers, tokens: names of the features, in the order of the weights.
      made: traces and settings of the training, for people.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1, 2]
    hidden: int = Field(ge=0)
    answers: tuple[str, ...] = Field(min_length=1)
    tokens: tuple[str, ...] = Field(min_length=1)
    made: dict[str, Any]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        known = {"answers": answer_feature_names() + feature_estimators(), "tokens": token_feature_names()}
        for part, names in (("answers", self.answers), ("tokens", self.tokens)):
            if unknown := [name for name in names if name not in known[part]]:
                raise ValueError(f"{part}: {unknown[0]!r:.60} is not a feature of this jaxtrace and its plug-ins")
            if len({*names}) < len(names):
                raise ValueError(f"{part}: a feature is named twice")
        return self


def save(confidence: Confidence, directory: str | Path, made: dict[str, Any]) -> None:
    """Write the two files, and replace older ones.

    Args:
      directory: directory to write to; created if missing.
      made: traces and settings of the training; JSON.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    parts = {"answers": confidence.answers, "tokens": confidence.tokens}
    names = {part: fitted.features for part, fitted in parts.items()}
    description = _Description(format=2, hidden=confidence.answers.hidden, **names, made=made)
    tensors = {f"{part}.{name}": array for part, fitted in parts.items() for name, array in fitted.arrays.items()}
    with atomic_file(directory / JSON) as text, atomic_file(directory / TENSORS) as weights:
        weights.write(to_bytes(tensors))
        text.write(description.model_dump_json(indent=1).encode())


def load(directory: str | Path) -> Confidence:
    """Read a confidence that `save` wrote.

    Raises:
      StudyError: a file is missing or damaged, the weights do not match the features, or it is a network of format 1.
    """
    directory = Path(directory)
    if missing := [name for name in (JSON, TENSORS) if not (directory / name).exists()]:
        raise StudyError(f"{directory}: has no {missing[0]}; {ADVICE}")
    description = read_model(_Description, directory / JSON, StudyError, "does not describe a confidence", ADVICE)
    try:
        tensors = tensors_of(read_bytes(directory / TENSORS, MAX_TENSORS, StudyError, ADVICE))
    except SafetensorError as error:
        raise StudyError(f"{directory / TENSORS}: cannot be read ({error}); {ADVICE}") from None
    if description.format == 1 and description.hidden:
        raise StudyError(
            f"{directory / JSON}: format 1 is of a network that jaxtrace no longer computes; train it again"
        )
    expected = {
        f"{part}.{name}": shape
        for part, features in (("answers", description.answers), ("tokens", description.tokens))
        for name, shape in _shapes(len(features), description.hidden).items()
    }
    shapes = {name: array.shape for name, array in tensors.items()}
    numbers = [array for array in tensors.values() if array.dtype == np.float32 and np.isfinite(array).all()]
    deviations = [array for name, array in tensors.items() if name.endswith(".sd")]
    if shapes != expected or len(numbers) != len(tensors) or not all((sd > 0).all() for sd in deviations):
        raise StudyError(f"{directory / TENSORS}: not the weights that {JSON} describes; {ADVICE}")

    def part(name: str, features: tuple[str, ...]) -> FittedClassifier:
        arrays = {key.removeprefix(f"{name}."): array for key, array in tensors.items() if key.startswith(f"{name}.")}
        return FittedClassifier(features, description.hidden, arrays)

    return Confidence(part("answers", description.answers), part("tokens", description.tokens))


def _shapes(features: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"mean": (features,), "sd": (features,)}
    if hidden:
        shapes |= {"hidden.kernel": (features, hidden), "hidden.bias": (hidden,)}
    return shapes | {"out.kernel": (hidden or features, 1), "out.bias": (1,)}
