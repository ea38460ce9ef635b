"""Reading a Hugging Face config strictly: whatever is neither read nor known to be harmless is an error."""

from __future__ import annotations

from typing import Any

from jaxtrace.errors import ConfigError

# Attributes that say nothing about the function a checkpoint computes at inference.
HARMLESS = frozenset(
    {
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)

_REQUIRED = object()


class ConfigReader:
    """A config.json of which every attribute must be asked for.

    Use as a context manager: leaving it raises for what nobody asked for.

    Raises:
      ConfigError: an attribute is missing, has a value we do not handle, or was never read; all of the last together.
    """

    def __init__(self, config: dict[str, Any], source: str):
        self.config = config
        self.source = source
        self.read: set[str] = set()

    def __enter__(self) -> ConfigReader:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        unread = sorted(set(self.config) - self.read - HARMLESS)
        if kind is None and unread:
            listed = ", ".join(f"{name}={self.config[name]!r}" for name in unread)
            self.fail(f"has attributes that jaxtrace does not handle: {listed}")

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """The value of an attribute; its default where it is absent or null."""
        self.read.add(name)
        value = self.config.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            self.fail(f"lacks {name!r}")
        return default

    def positive(self, name: str, default: Any = _REQUIRED) -> int:
        """A positive whole number."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.fail(f"has {name}={value!r}, which must be a positive whole number")
        return value

    def number(self, name: str, default: float) -> float:
        """A positive number."""
        return float(self._typed(name, default, (int, float), "a positive number", lambda value: value > 0))

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        return self._typed(name, default, (bool,), "true or false")

    def mapping(self, name: str) -> dict[str, Any]:
        """An object, empty where it is absent or null."""
        return self._typed(name, {}, (dict,), "an object")

    def _typed(self, name, default, types, wanted, holds=lambda _: True) -> Any:
        value = self.get(name, default)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types) or not holds(value):
            self.fail(f"has {name}={value!r}, which must be {wanted}")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Checks that an attribute, where present, has one of the values we handle."""
        self.read.add(name)
        value = self.config.get(name, allowed[0])
        if value not in allowed:
            self.fail(f"has {name}={value!r}; jaxtrace handles {', '.join(map(repr, allowed))}")

    def fail(self, problem: str) -> None:
        """Raises ConfigError."""
        raise ConfigError(f"{self.source}: the config {problem}; this checkpoint cannot be traced exactly")
