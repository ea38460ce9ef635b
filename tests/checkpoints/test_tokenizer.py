"""Text of each token, for any ids, and the place of images in a prompt."""

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.mllama.processing_mllama import build_string_from_input

from jaxtrace.checkpoints.tokenizer import Tokenizer

BYTES = {f"<0x{value:02X}>": 2 + value for value in range(256)}
VOCABULARY = {"<unk>": 0, "</s>": 1, **BYTES, "▁a": 258, "b": 259}


@pytest.fixture
def byte_fallback():
    backend = Backend(models.BPE(VOCABULARY, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>"))


def test_a_split_character_appears_with_its_last_byte(byte_fallback):
    ids = np.array([258, *(BYTES[f"<0x{byte:02X}>"] for byte in "é".encode()), 259])
    assert "".join(byte_fallback.pieces(ids)) == " aéb"
    assert byte_fallback.pieces(ids)[1] == ""


@pytest.mark.parametrize("seed", range(5))
def test_invalid_utf8_does_not_stop_the_pieces(byte_fallback, seed):
    ids = np.random.default_rng(seed).integers(0, len(VOCABULARY), 60)
    pieces = byte_fallback.pieces(ids)
    assert len(pieces) == len(ids)
    pieces_of_b = [piece for piece, i in zip(pieces, ids, strict=True) if i == 259]
    assert all(piece.endswith("b") for piece in pieces_of_b)


@pytest.fixture(scope="module")
def word_tokenizer():
    """A tokenizer of words with a start token and an image token."""
    words = {word: i for i, word in enumerate(("<s>", "<|image|>", "what", "is", "it", "[UNK]"))}
    backend = Backend(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<s>", "<|image|>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"))


@pytest.mark.parametrize("text", ["what is it", "<|image|>what is it", "<|image|><|image|>it", "<|image|><s>what"])
def test_image_tokens_stand_where_transformers_puts_them(word_tokenizer, text):
    images = text.count("<|image|>") or 1
    built = text if "<|image|>" in text else f"<|image|>{text}"
    expected = word_tokenizer.hf.encode(build_string_from_input(built, "<s>", "<|image|>"), add_special_tokens=False)
    assert word_tokenizer.encode(text, chat=False, images=images, image_token=1) == expected


def test_a_text_without_images_gets_its_start_token(word_tokenizer):
    assert word_tokenizer.encode("what is it", chat=False, image_token=1) == [0, 2, 3, 4]
