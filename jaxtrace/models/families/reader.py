"""Strict reader of a Hugging Face config: an attribute that is not read is accepted only if it changes no logit."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, NoReturn

from jaxtrace.errors import ConfigError
from jaxtrace.models.families.known import KNOWN
from jaxtrace.settings.numbers import END_OF_INT32, is_float32

# Reasons for ignoring an attribute.
NULL, INERT, NEVER_RUN, UNKNOWN = "null", "inert", "its code is never run", "unknown to transformers"

# Reviewed attributes without influence on the function that a checkpoint computes at inference, in any family.
_INERT = {
    "origin and storage": """
        _commit_hash _model_name_or_path _name_or_path base_model_name_or_path dtype finetuning_task is_llama_config
        name_or_path task_specific_params tokenizer_class torch_dtype transformers.js_config transformers_version
        trust_remote_code unsloth_fixed unsloth_version
    """,
    "tokens": """
        bos_token bos_token_id cls_token_id decoder_start_token_id eos_token mask_token_id max_sequence_length
        model_max_length pad_token_id prefix sep_token_id unk_token_id
    """,
    "training": "attention_dropout gradient_checkpointing init_std initializer_factor initializer_range pretraining_tp",
    "execution in transformers": """
        _attn_implementation _attn_implementation_autoset _attn_implementation_internal attn_implementation
        cache_implementation chunk_size_feed_forward experts_implementation output_attentions output_hidden_states
        return_dict tf_legacy_loss tie_last_hidden_states torchscript use_bfloat16 use_cache
    """,
    "heads and encoders that a decoder lacks": """
        _num_labels classifier_dropout cross_attention_hidden_size hidden_dropout id2label is_decoder
        is_encoder_decoder label2id num_labels problem_type tie_encoder_decoder
    """,
    "generation settings, which transformers 4 wrote into configs": """
        bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
        exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length
        max_new_tokens min_length min_new_tokens min_p no_repeat_ngram_size num_beam_groups num_beams
        num_return_sequences output_scores remove_invalid_values repetition_penalty return_dict_in_generate
        suppress_tokens temperature top_k top_p typical_p
    """,
}
INERT_NAMES = frozenset(" ".join(_INERT.values()).split())

# Attributes that shape the computation: a family reads them, or they are null, or the checkpoint is refused.
SHAPING = (
    *("attention_chunk_size", "layer_types", "original_max_position_embeddings", "per_layer_config"),
    *("*head_dim", "quantization_config", "rope_*", "sliding_window"),
    *("mem_layer*", "memory_layer*", "memory_size", "ret_attn_layers"),  # memory layers of other modelling code
)
# Values of shaping attributes that change nothing in any family. A null `is_causal` makes attention bidirectional.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "is_causal": (True,),
    "partial_rotary_factor": (1.0, None),
    "pruned_heads": ({}, None),
    "rope_interleaved": (False, None),
    "use_mrope": (False, None),
    # Routers and experts of other modelling code.
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), (0, None)),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "shared_expert_intermediate_size"), (0, None)),
    "enable_moe_block": (False, None),
    **dict.fromkeys(("moe_layer_freq", "n_group", "topk_group", "routed_scaling_factor"), (1, None)),
    "first_k_dense_replace": (0, None),
    "scoring_func": ("softmax", None),
    "topk_method": ("greedy", None),
}
READ_BESIDE = ("architectures", "eos_token_id", "model_type")  # read where a checkpoint is opened

MAX_NUMBER = END_OF_INT32 - 1
MAX_LAYERS = 10_000

Activation = Literal["silu", "gelu", "gelu_tanh"]
# transformers' names; several name one function.
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_tanh",
    "swish": "silu",
}


class ConfigReader:
    """Reader of a config.json that checks that every attribute is read or changes no logit.

    Use it as a context manager: its exit raises for attributes that were not read, unless they do not shape the
    computation and are null, inert, or unknown to transformers.

    Args:
      config: attributes in the checkpoint.
      source: name of the checkpoint, for error messages.
      defaults: defaults of transformers' config class for absent attributes.
      family: family of the config, a key of `KNOWN`.
      ignored: receives the accepted attributes that were not read, with the reason of each; None for nobody.
      part: prefix of their names in `ignored`, such as "text_config.".

    Raises:
      ConfigError: an attribute has an unsupported value, or some attributes are not supported (all are listed).
    """

    def __init__(
        self,
        config: dict[str, Any],
        source: str,
        defaults: Mapping[str, Any],
        family: str,
        ignored: dict[str, str] | None = None,
        part: str = "",
    ) -> None:
        self.given = config
        self.defaults = defaults
        self.config = {**defaults, **config}
        self.source = source
        self.family = family
        self.read = {*READ_BESIDE}
        self._ignored = {} if ignored is None else ignored
        self._part = part

    def __enter__(self) -> ConfigReader:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            return
        for name, values in NEUTRAL.items():
            if name not in self.read:
                self.only(name, *values)
        unread = {name: self.given[name] for name in sorted(self.given.keys() - self.read)}
        unsupported = []
        for name, value in unread.items():
            if reason := self._reason_to_ignore(name, value):
                self._ignored[self._part + name] = reason
            else:
                unsupported.append(f"{name}={value!r}")
        if unsupported:
            self.fail(f"has attributes that jaxtrace does not support: {', '.join(unsupported)}")

    def _reason_to_ignore(self, name: str, value: Any) -> str | None:
        """Return why an attribute that was not read changes no logit; None if it may change some."""
        if value is None:
            return NULL
        if any(fnmatchcase(name, pattern) for pattern in SHAPING):
            return INERT if self._is_off(name, value) else None
        if name == "auto_map":
            return NEVER_RUN
        if name in INERT_NAMES:
            return INERT
        return None if name in KNOWN[self.family] else UNKNOWN

    def _is_off(self, name: str, value: Any) -> bool:
        """Return whether a shaping attribute is switched off, as in a Llama config that was converted from Qwen."""
        if name == "sliding_window":
            return self.given.get("use_sliding_window") is False
        return name == "layer_types" and isinstance(value, list) and {*map(str, value)} == {"full_attention"}

    def get(self, name: str) -> Any:
        """Return the value of an attribute, or its default."""
        self.read.add(name)
        return self.config[name]

    def optional(self, name: str) -> Any:
        """Return the value of an attribute that may have no default; None if it is absent."""
        self.read.add(name)
        return self.config.get(name)

    def ignore(self, *names: str) -> None:
        """Accept attributes that have no effect in this family."""
        self.read.update(names)
        self._ignored.update({self._part + name: INERT for name in names if name in self.given})

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
        """Return a whole number from 0 to `MAX_NUMBER`."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
            self.fail(f"has {name}={value!r}, which must be a whole number from 0 to {MAX_NUMBER}")
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
        """Check that the value of an attribute is a positive number that float32 holds, and return it."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (value > 0 and is_float32(value)):
            self.fail(f"has {name}={value!r}, which must be a positive number that float32 holds")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a boolean; null is false where false is the default."""
        value = self.get(name)
        if value is None and self.defaults[name] is False:
            return False
        if not isinstance(value, bool):
            self.fail(f"has {name}={value!r}, which must be true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object; an absent one or null is the family's default, or empty."""
        self.read.add(name)
        value = self.config.get(name)
        return self.as_mapping(name, self.defaults.get(name) if value is None else value)

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


def renamed(config: dict[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return a config whose attributes have a family's own names; an alias wins, as in transformers."""
    own = {name: value for name, value in config.items() if name not in aliases}
    return own | {own_name: config[alias] for alias, own_name in aliases.items() if config.get(alias) is not None}
