"""A trained confidence on the disk: confidence.json, which says what it is, and confidence.safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxtrace.errors import StudyError
from jaxtrace.studies.confidence.model import Confidence, Fitted

JSON, TENSORS = "confidence.json", "confidence.safetensors"


class _Description(BaseModel):
    """What confidence.json holds. Unknown fields are refused.

    Attributes:
      format: of the two files.
      hidden: units of the hidden layer.
      answers, tokens: names of the features, in the order of the weights.
      made: what it was trained on and how, for people.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    hidden: int = Field(ge=0)
    answers: tuple[str, ...] = Field(min_length=1)
    tokens: tuple[str, ...] = Field(min_length=1)
    made: dict[str, Any]


def save(confidence: Confidence, directory: str | Path, made: dict[str, Any]) -> None:
    """Writes the two files; older ones are replaced.

    Args:
      confidence: what to write.
      directory: made if need be.
      made: what it was trained on and how; JSON.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    parts = {"answers": confidence.answers, "tokens": confidence.tokens}
    names = {part: fitted.features for part, fitted in parts.items()}
    described = _Description(format=1, hidden=confidence.answers.hidden, **names, made=made)
    tensors = {f"{part}.{name}": array for part, fitted in parts.items() for name, array in fitted.arrays.items()}
    save_file(tensors, directory / TENSORS)
    (directory / JSON).write_text(described.model_dump_json(indent=1), encoding="utf-8")


def load(directory: str | Path) -> Confidence:
    """Reads what `save` wrote.

    Raises:
      StudyError: a file is missing or damaged, or holds other weights than the features call for.
    """
    directory = Path(directory)
    try:
        described = _Description.model_validate_json((directory / JSON).read_bytes())
        tensors = load_file(directory / TENSORS)
    except FileNotFoundError as error:
        raise StudyError(f"{directory}: has no {Path(error.filename or TENSORS).name}; {AGAIN}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StudyError(f"{directory / JSON}: {where}{': ' * bool(where)}{first['msg']}; {AGAIN}") from None
    except (SafetensorError, OSError) as error:
        raise StudyError(f"{directory / TENSORS}: cannot be read ({error}); {AGAIN}") from None
    wanted = {
        f"{part}.{name}": shape
        for part, features in (("answers", described.answers), ("tokens", described.tokens))
        for name, shape in _shapes(len(features), described.hidden).items()
    }
    found = {name: array.shape for name, array in tensors.items()}
    if found != wanted or not all(a.dtype == np.float32 and np.isfinite(a).all() for a in tensors.values()):
        raise StudyError(f"{directory / TENSORS}: not the weights that {JSON} describes; {AGAIN}")

    def part(name: str, features: tuple[str, ...]) -> Fitted:
        arrays = {key.removeprefix(f"{name}."): array for key, array in tensors.items() if key.startswith(f"{name}.")}
        return Fitted(features, described.hidden, arrays)

    return Confidence(part("answers", described.answers), part("tokens", described.tokens))


AGAIN = "name a directory that jaxtrace confidence train wrote, or train again"


def _shapes(features: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"mean": (features,), "sd": (features,)}
    if hidden:
        shapes |= {"hidden.kernel": (features, hidden), "hidden.bias": (hidden,)}
    return shapes | {"out.kernel": (hidden or features, 1), "out.bias": (1,)}
