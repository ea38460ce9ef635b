"""Rules that split a text before byte-level BPE, by their names in GGUF files (`tokenizer.ggml.pre`).

A name stands for the tokenizer.json of a published model: llama.cpp compares their ids when a model is converted. The
rules are those of that tokenizer.json, which llama.cpp rewrites for its own regular expressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
START, LETTERS, SMALL = r"[^\r\n\p{L}\p{N}]?", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

LLAMA_3 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}{{1,3}}|{SYMBOLS}|{SPACES}"
QWEN_2 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}|{SYMBOLS}|{SPACES}"
TEKKEN = rf"{START}{LETTERS}*{SMALL}+|{START}{LETTERS}+{SMALL}*|\p{{N}}|{PATHS}|{SPACES}"
GPT_4O = (
    rf"{START}{LETTERS}*{SMALL}+{CONTRACTIONS}?|{START}{LETTERS}+{SMALL}*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{PATHS}|{SPACES}"
)


CHINESE = "[一-龥ࠀ-一가-\ud7ff]+"


@dataclass(frozen=True)
class Split:
    """A rule that splits texts.

    Attributes:
      steps: pre-tokenizers, as tokenizer.json describes them.
      nfc: True if the text is normalised to NFC first.
      ignore_merges: True if a piece that is a token is taken whole, whatever the merges say.
      start: True if a start token is added where the file does not say.
    """

    steps: tuple[dict[str, Any], ...]
    nfc: bool = False
    ignore_merges: bool = False
    start: bool = False


def _bytes(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _at(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DIGITS = {"type": "Digits", "individual_digits": True}
GPT_2, BYTES = _bytes(use_regex=True), _bytes(use_regex=False)  # the regular expression of GPT-2 is built in

SPLITS = {
    "default": Split((GPT_2,)),
    "gpt-2": Split((GPT_2,)),
    "phi-2": Split((GPT_2,)),
    "olmo": Split((GPT_2,), nfc=True),  # GPT-NeoX's tokenizer: Pythia, OLMo 1
    "mpt": Split((GPT_2,), nfc=True),
    "smollm": Split((DIGITS, GPT_2)),
    "starcoder": Split((DIGITS, GPT_2)),
    "refact": Split((DIGITS, GPT_2)),
    "llama-bpe": Split((_at(LLAMA_3), BYTES), ignore_merges=True, start=True),
    "llama3": Split((_at(LLAMA_3), BYTES), ignore_merges=True, start=True),
    "llama-v3": Split((_at(LLAMA_3), BYTES), ignore_merges=True, start=True),
    "smaug-bpe": Split((_at(LLAMA_3), BYTES), ignore_merges=True),  # Llama 3's without a start token: SmolLM3
    "dbrx": Split((_at(LLAMA_3), BYTES)),  # GPT-4's: Phi-4, OLMo 2 and 3
    "deepseek-coder": Split((_at(r"[\r\n]"), _at(r"\s?\p{L}+"), _at(r"\s?\p{P}+"), _at(CHINESE), DIGITS, BYTES)),
    "qwen2": Split((_at(QWEN_2), BYTES), nfc=True),
    "deepseek-r1-qwen": Split((_at(QWEN_2), BYTES)),
    "gpt-4o": Split((_at(GPT_4O), BYTES)),  # Phi-4-mini
    "tekken": Split((_at(TEKKEN), BYTES), ignore_merges=True, start=True),
}
