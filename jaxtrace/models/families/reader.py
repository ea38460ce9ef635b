"""Reading a Hugging Face config strictly: whatever is neither read nor known to be harmless is an error."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from jaxtrace.errors import ConfigError

# Attributes that say nothing about the function a checkpoint computes at inference.
HARMLESS = frozenset(
    {
        # where it is from, and in what it is stored
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
        # how transformers runs it
        "cache_implementation",
        "chunk_size_feed_forward",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "tf_legacy_loss",
        "torchscript",
        "use_bfloat16",
        "use_cache",
        # heads and encoders that a decoder does not have
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

MOST = 2**31 - 1  # of any whole number
MOST_LAYERS = 10_000

Activation = Literal["silu", "gelu", "gelu_tanh"]
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class ConfigReader:
    """A config.json of which every attribute must be asked for.

    Use as a context manager: leaving it raises for what nobody asked for.

    Args:
      config: the attributes that the checkpoint gives.
      source: the checkpoint, for errors.
      defaults: what transformers' config class takes for those that are absent.

    Raises:
      ConfigError: an attribute has a value we do not handle, or was never read; all of the last together.
    """

    def __init__(self, config: dict[str, Any], source: str, defaults: Mapping[str, Any]):
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
            self.fail(f"has attributes that jaxtrace does not handle: {listed}")

    def get(self, name: str) -> Any:
        """The value of an attribute, or its default."""
        self.read.add(name)
        return self.config[name]

    def ignore(self, *names: str) -> None:
        """Calls attributes read that say nothing in this family."""
        self.read.update(names)

    def positive(self, name: str, most: int = MOST) -> int:
        """A positive whole number, `most` or less."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.fail(f"has {name}={value!r}, which must be a positive whole number")
        if value > most:
            self.fail(f"has {name}={value!r}, which is beyond {most}")
        return value

    def layers(self, name: str = "num_hidden_layers") -> int:
        """A number of layers."""
        return self.positive(name, MOST_LAYERS)

    def whole(self, name: str) -> int:
        """A whole number, 0 or more."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(f"has {name}={value!r}, which must be 0 or a positive whole number")
        return value

    def positive_or_none(self, name: str) -> int | None:
        """A positive whole number, or null."""
        return None if self.get(name) is None else self.positive(name)

    def number(self, name: str) -> float:
        """A positive number."""
        return self.positive_number(name, self.get(name))

    def number_or_none(self, name: str) -> float | None:
        """A positive number, or null."""
        return None if self.get(name) is None else self.number(name)

    def positive_number(self, name: str, value: Any) -> float:
        """Checks the value of an attribute: a positive number, finite."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= sys.float_info.max:
            self.fail(f"has {name}={value!r}, which must be a positive number")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.get(name)
        if not isinstance(value, bool):
            self.fail(f"has {name}={value!r}, which must be true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; empty where it is absent or null."""
        self.read.add(name)
        return self.as_mapping(name, self.config.get(name))

    def as_mapping(self, name: str, value: Any) -> dict[str, Any]:
        """Checks a value: an object, or null, which is an empty one."""
        if not isinstance(value, dict | None):
            self.fail(f"has {name}={value!r}, which must be an object")
        return value or {}

    def activation(self, name: str) -> Activation:
        """A name of an activation function."""
        self.only(name, *ACTIVATIONS)
        return ACTIVATIONS[self.get(name)]

    def only(self, name: str, *allowed: Any) -> None:
        """Checks that an attribute, where present, has one of the values we handle."""
        self.read.add(name)
        value = self.config.get(name, allowed[0])
        if value not in allowed:
            self.fail(f"has {name}={value!r}; jaxtrace handles {', '.join(map(repr, allowed))}")

    def fail(self, problem: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{self.source}: the config {problem}; this checkpoint cannot be traced exactly")
