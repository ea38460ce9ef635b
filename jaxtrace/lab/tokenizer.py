"""Byte-level BPE tokenizer of the lab's models, in Hugging Face's layout."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from jaxtrace.files import write_atomically

VOCAB_SIZE = 1024
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Train a byte-level BPE tokenizer; it encodes every string, so there is no unknown token.

    Each digit is a token, and encoding puts `<s>` first unless `add_special_tokens=False`.

    Args:
      texts: training text, one document per item.
      vocab_size: number of entries, at least the 256 bytes and the 3 special tokens.

    Returns:
      The tokenizer; ids 0, 1, 2 are `<pad>`, `<s>`, `</s>`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path, max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json for `AutoTokenizer`.

    Args:
      max_length: longest sequence that the model takes, in tokens.
    """
    specials = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **specials,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": True,
        "add_eos_token": False,
    }
    write_atomically(directory / "tokenizer.json", tokenizer.to_str(pretty=True))
    for name, content in (("tokenizer_config.json", settings), ("special_tokens_map.json", specials)):
        write_atomically(directory / name, json.dumps(content, indent=2) + "\n")
