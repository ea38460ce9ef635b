"""Strict reader of a Hugging Face config: an attribute that is neither read nor known to be harmless is an error."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from jaxtrace.errors import ConfigError

# Attributes without influence on the function that a checkpoint computes at inference.
HARMLESS = frozenset(
    {
        # origin and storage
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "architectures",
        "dtype",
        "finetuning_task",
        "is_llama_config",
        "model_type",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        # tokens
        "bos_token_id",
        "decoder_start_token_id",
        "eos_token_id",
        "pad_token_id",
        "prefix",
        "sep_token_id",
        # training
        "attention_dropout",
        "gradient_checkpointing",
        "initializer_range",
        "pretraining_tp",
        # execution in transformers
        "cache_implementation",
        "chunk_size_feed_forward",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "tf_legacy_loss",
        "torchscript",
        "use_bfloat16",
        "use_cache",
        # heads and encoders that a decoder lacks
        "cross_attention_hidden_size",
        "id2label",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "problem_type",
        "tie_encoder_decoder",
        # generation settings, which transformers 4 wrote into configs
        "bad_words_ids",
        "begin_suppress_tokens",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)

MAX_NUMBER = 2**31 - 1
MAX_LAYERS = 10_000

Activation = Literal["silu", "gelu", "gelu_tanh"]
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class ConfigReader:
    """Reader of a config.json that checks that every attribute is read.

    Use it as a context manager: its exit raises for attributes that were not read.

    Args:
      config: attributes in the checkpoint.
      source: name of the checkpoint, for error messages.
      defaults: defaults of transformers' config class for absent attributes.

    Raises:
      ConfigError: an attribute has an unsupported value, or some attributes were not read (all are listed).
    """

    def __init__(self, config: dict[str, Any], source: str, defaults: Mapping[str, Any]) -> None:
        self.given = config
        self.config = {**defaults, **config}
        self.source = source
        self.read: set[str] = set()

    def __enter__(self) -> ConfigReader:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            return
        self.only("add_cross_attention", False)
        self.only("pruned_heads", {})
        unread = sorted(set(self.given) - self.read - HARMLESS)
        if unread:
            listed = ", ".join(f"{name}={self.given[name]!r}" for name in unread)
            self.fail(f"has attributes that jaxtrace does not support: {listed}")

    def get(self, name: str) -> Any:
        """Return the value of an attribute, or its default."""
        self.read.add(name)
        return self.config[name]

    def ignore(self, *names: str) -> None:
        """Mark attributes as read that have no effect in this family."""
        self.read.update(names)

    def positive(self, name: str, maximum: int = MAX_NUMBER) -> int:
        """Return a positive whole number of at most `maximum`."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.fail(f"has {name}={value!r}, which must be a positive whole number")
        if value > maximum:
            self.fail(f"has {name}={value!r}, which is above {maximum}")
        return value

    def layers(self, name: str = "num_hidden_layers") -> int:
        """Return a number of layers."""
        return self.positive(name, MAX_LAYERS)

    def whole(self, name: str) -> int:
        """Return a whole number of at least 0."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(f"has {name}={value!r}, which must be 0 or a positive whole number")
        return value

    def positive_or_none(self, name: str) -> int | None:
        """Return a positive whole number, or None for null."""
        return None if self.get(name) is None else self.positive(name)

    def number(self, name: str) -> float:
        """Return a positive number."""
        return self.positive_number(name, self.get(name))

    def number_or_none(self, name: str) -> float | None:
        """Return a positive number, or None for null."""
        return None if self.get(name) is None else self.number(name)

    def positive_number(self, name: str, value: Any) -> float:
        """Check that the value of an attribute is a positive finite number, and return it."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= sys.float_info.max:
            self.fail(f"has {name}={value!r}, which must be a positive number")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self.get(name)
        if not isinstance(value, bool):
            self.fail(f"has {name}={value!r}, which must be true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object; an absent one or null is empty."""
        self.read.add(name)
        return self.as_mapping(name, self.config.get(name))

    def as_mapping(self, name: str, value: Any) -> dict[str, Any]:
        """Check that a value is an object or null, and return it; null is empty."""
        if not isinstance(value, dict | None):
            self.fail(f"has {name}={value!r}, which must be an object")
        return value or {}

    def activation(self, name: str) -> Activation:
        """Return an activation function's name."""
        self.only(name, *ACTIVATIONS)
        return ACTIVATIONS[self.get(name)]

    def only(self, name: str, *allowed: Any) -> None:
        """Check that an attribute is absent or has one of the supported values."""
        self.read.add(name)
        value = self.config.get(name, allowed[0])
        if value not in allowed:
            self.fail(f"has {name}={value!r}; jaxtrace supports {', '.join(map(repr, allowed))}")

    def fail(self, problem: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{self.source}: the config {problem}; this checkpoint cannot be traced exactly")
