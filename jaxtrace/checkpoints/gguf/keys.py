"""Metadata of a GGUF model's architecture, checked as it is read."""

from __future__ import annotations

from typing import Any, NoReturn

from jaxtrace.checkpoints.gguf.files import GgufModel
from jaxtrace.errors import CheckpointError, few
from jaxtrace.models.families.reader import MAX_NUMBER
from jaxtrace.settings.numbers import is_float32

# Metadata that changes no logit.
INERT = ("rope.scaling.finetuned", "tensor_data_layout")


class Keys:
    """Metadata of one architecture, each value checked as it is read; others are refused at the end."""

    def __init__(self, model: GgufModel) -> None:
        self.model, self._prefix = model, f"{model.architecture}."
        own = {key: value for key, value in model.metadata.items() if key.startswith(self._prefix)}
        self._values = {key.removeprefix(self._prefix): value for key, value in own.items()}
        self._read = {*INERT}

    def get(self, name: str) -> Any:
        """Return a value; None if there is none."""
        self._read.add(name)
        return self._values.get(name)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a positive whole number; a list has one for each layer, all equal."""
        value = self._stored(name, default)
        value = value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value
        if type(value) is not int or not 0 < value <= MAX_NUMBER:
            self.fail(f"has {self._prefix}{name}={value!r:.60}, which must be a positive whole number")
        return value

    def per_layer(self, name: str, layers: int) -> list[int]:
        """Return a positive whole number for each layer; one number holds for all."""
        value = self._stored(name, None)
        values = value if isinstance(value, list) else [value] * layers
        if len(values) != layers or not all(type(x) is int and 0 < x <= MAX_NUMBER for x in values):
            self.fail(f"has {self._prefix}{name}={value!r:.60}, which must be a positive whole number for each layer")
        return values

    def number(self, name: str, default: float | None = None) -> float:
        """Return a positive number."""
        value = self._stored(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and is_float32(value)):
            self.fail(f"has {self._prefix}{name}={value!r:.60}, which must be a positive number")
        return float(value)

    def _stored(self, name: str, default: Any) -> Any:
        value = default if (stored := self.get(name)) is None else stored
        if value is None:
            self.fail(f"has no {self._prefix}{name}")
        return value

    def finish(self) -> None:
        """Refuse metadata that was not read, unless it is zero, empty or false."""
        unread = {key: value for key, value in self._values.items() if value and key not in self._read}
        if unread:
            shown = few([f"{self._prefix}{key}={value!r:.60}" for key, value in unread.items()])
            self.fail(f"has metadata that jaxtrace does not support: {shown}")

    def fail(self, problem: str) -> NoReturn:
        """Raise CheckpointError."""
        raise CheckpointError(f"{self.model.files[0]}: {problem}; this file cannot be traced exactly")
