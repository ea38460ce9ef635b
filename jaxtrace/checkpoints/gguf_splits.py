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


def _regex(*patterns: str) -> tuple[dict[str, Any], ...]:
    steps = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return (*steps, _bytes(use_regex=False))


GPT_2 = (_bytes(use_regex=True),)  # the regular expression of GPT-2 is built in
DIGITS = ({"type": "Digits", "individual_digits": True}, *GPT_2)

SPLITS = {
    "default": Split(GPT_2),
    "gpt-2": Split(GPT_2),
    "phi-2": Split(GPT_2),
    "olmo": Split(GPT_2, nfc=True),  # GPT-NeoX's tokenizer: Pythia, OLMo 1
    "mpt": Split(GPT_2, nfc=True),
    "smollm": Split(DIGITS),
    "starcoder": Split(DIGITS),
    "refact": Split(DIGITS),
    "llama-bpe": Split(_regex(LLAMA_3), ignore_merges=True, start=True),
    "llama3": Split(_regex(LLAMA_3), ignore_merges=True, start=True),
    "llama-v3": Split(_regex(LLAMA_3), ignore_merges=True, start=True),
    "smaug-bpe": Split(_regex(LLAMA_3), ignore_merges=True),  # Llama 3's without a start token: SmolLM3
    "dbrx": Split(_regex(LLAMA_3)),  # GPT-4's: Phi-4, OLMo 2 and 3
    "qwen2": Split(_regex(QWEN_2), nfc=True),
    "deepseek-r1-qwen": Split(_regex(QWEN_2)),
    "gpt-4o": Split(_regex(GPT_4O)),  # Phi-4-mini
    "tekken": Split(_regex(TEKKEN), ignore_merges=True, start=True),
}
