"""Ids equal those of tokenizer.json itself; text of each token, for any ids; the place of images in a prompt."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers.models.mllama.processing_mllama import build_string_from_input

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import CheckpointError

BYTES = {f"<0x{value:02X}>": 2 + value for value in range(256)}
VOCABULARY = {"<unk>": 0, "</s>": 1, **BYTES, "▁a": 258, "b": 259}
REAL = ["TinyStories-656K", "babyllama-105", "stories260K", "gpt2", "smollm2", "demo"]
CONTROL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end_story|>", "<unk>", "<0x0A>"]
WORDS = ["Once upon a time", "don't", " ", "  ", "\n", "12,345", "é", "e\u0301", "日本", "🙂", "\u200d", "ﬁ", "\x00"]
TEXTS = st.lists(st.one_of(st.sampled_from([*WORDS, *CONTROL]), st.text(max_size=6)), max_size=8).map("".join)


@pytest.fixture(params=REAL, scope="module")
def real(request):
    """A directory with a real tokenizer."""
    name = request.param
    if name in ("smollm2", "demo"):
        return request.getfixturevalue(name) if name == "smollm2" else demo_path()
    shared = request.getfixturevalue("shared_data")
    (found,) = [folder for kind in ("checkpoints", "tokenizers") if (folder := shared / kind / name).is_dir()]
    return found


@settings(max_examples=500)
@given(text=TEXTS)
def test_ids_equal_those_of_the_tokenizer_file(real, text):
    tokenizer, alone = loaded(real)
    ids = alone.encode(text).ids
    begin = [i for i, added in zip(ids, alone.encode(text).special_tokens_mask, strict=True) if added]
    while begin and ids[1:2] == begin:  # the text begins with the start token, which stands once
        ids = ids[1:]
    assert tokenizer.encode(text, chat=False) == ids


@settings(max_examples=100)
@given(data=st.data())
def test_joined_pieces_equal_the_text(real, data):
    tokenizer, alone = loaded(real)
    ids = data.draw(st.lists(st.integers(0, alone.get_vocab_size() - 1), max_size=30))
    pieces = tokenizer.pieces(np.array(ids, np.int32))
    added = alone.get_added_tokens_decoder()
    special = {i for i, token in added.items() if token.special}
    assert len(pieces) == len(ids)
    assert all(piece == added[i].content for i, piece in zip(ids, pieces, strict=True) if i in special)
    visible = [i for i in ids if i not in special]
    text = alone.decode(visible)
    if "�" not in text:
        assert tokenizer.decode(np.array(ids, np.int32)) == text


_loaded = {}


def loaded(directory: Path) -> tuple[Tokenizer, Backend]:
    if directory not in _loaded:
        _loaded[directory] = Tokenizer.load(directory), Backend.from_file(str(directory / "tokenizer.json"))
    return _loaded[directory]


@pytest.mark.parametrize("declared", ["LlamaTokenizer", "LlamaTokenizerFast", "GPT2Tokenizer", "Unheard", None])
def test_the_declared_class_does_not_change_the_ids(declared, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((demo_path() / "tokenizer.json").read_bytes())
    config = {"tokenizer_class": declared, "clean_up_tokenization_spaces": True, "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tekken.json").write_text("{}")
    tokenizer, demo = Tokenizer.load(tmp_path), Tokenizer.load(demo_path())
    text = "How are you doing ? It 's 10 ."
    assert tokenizer.encode(text, chat=False) == demo.encode(text, chat=False)
    assert tokenizer.decode(np.array(tokenizer.encode(text, chat=False))) == text


def test_smollm2_encodes_as_published(smollm2):
    assert Tokenizer.load(smollm2).encode("How are you doing?", chat=False) == [2020, 359, 346, 2567, 47]


@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer", "decoder"])
def test_a_regular_expression_that_backtracks_forever_is_an_error(part):
    spec = json.loads((demo_path() / "tokenizer.json").read_text())
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    replace = {"type": "Replace", "content": "b"}
    spec[part] = {"pattern": {"Regex": "(a+)+$"}, **(split if part == "pre_tokenizer" else replace)}
    tokenizer = Tokenizer(Backend.from_str(json.dumps(spec)))
    text = "a" * 100 + "!"
    with pytest.raises(CheckpointError, match=r"^the tokenizer fails \(.*retry-limit.*\); download its files again$"):
        if part == "decoder":
            tokenizer.backend.add_tokens([text])
            tokenizer.pieces(np.array([tokenizer.backend.token_to_id(text)]))
        else:
            tokenizer.encode(text, chat=False)


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path):
    backend = Backend.from_file(str(demo_path() / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = "Where does this long text end?"
    assert Tokenizer.load(tmp_path).encode(text, chat=False) == Tokenizer.load(demo_path()).encode(text, chat=False)


@pytest.mark.parametrize("content", [b"\n\x0f\n\x05<unk>", b"IQ== 0\n"])
def test_a_lone_tokenizer_model_names_the_package(tmp_path, monkeypatch, content):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "tokenizer.model").write_bytes(content)
    package = "sentencepiece" if content[:1] == b"\n" else "tiktoken"
    with pytest.raises(CheckpointError, match=f"tokenizer.model needs the package {package}; pip install {package}"):
        Tokenizer.load(tmp_path)


def test_a_lone_tekken_file_is_refused(tmp_path):
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"has tekken.json, Mistral's own format, and no tokenizer.json"):
        Tokenizer.load(tmp_path)


def words(single, specials=("<s>", "</s>", "<|image|>")):
    """Return a tokenizer of words with some special tokens and a post-processor."""
    vocabulary = {word: i for i, word in enumerate((*specials, "what", "is", "it", "[UNK]"))}
    backend = Backend(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(list(specials))
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return Tokenizer(backend, {"bos_token": "<s>"})


@pytest.mark.parametrize("text", ["what is it", "<s>what is it", "<s><s>what is it", "<s> <s>what is it"])
def test_one_start_token_stands_and_no_end_token(text):
    for single in ("<s> $A", "<s> $A </s>"):
        encoded = words(single).encode_text(text)
        assert encoded.ids == [0, 3, 4, 5]
        assert (encoded.start, encoded.start_repeated) == ("tokenizer", text[0] == "<")
        assert encoded.end_dropped == single.endswith("</s>")
    assert words("$A").encode_text(text).start == ("text" if text[0] == "<" else "none")


def test_an_end_token_that_the_text_holds_stands():
    assert words("<s> $A </s>").encode("what </s>", chat=False) == [0, 3, 1]


@pytest.fixture
def byte_fallback():
    backend = Backend(models.BPE(VOCABULARY, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return Tokenizer(backend)


def test_a_split_character_appears_with_its_last_byte(byte_fallback):
    ids = np.array([258, *(BYTES[f"<0x{byte:02X}>"] for byte in "é".encode()), 259])
    assert "".join(byte_fallback.pieces(ids)) == " aéb"
    assert byte_fallback.pieces(ids)[1] == ""


def test_an_incomplete_character_at_the_end_is_shown(byte_fallback):
    assert byte_fallback.pieces(np.array([258, BYTES["<0xC3>"]])) == (" a", "�")


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
    return words("<s> $A")


@pytest.mark.parametrize("text", ["what is it", "<|image|>what is it", "<|image|><|image|>it", "<|image|><s>what"])
def test_image_tokens_stand_where_transformers_puts_them(word_tokenizer, text):
    images = text.count("<|image|>") or 1
    built = text if "<|image|>" in text else f"<|image|>{text}"
    expected = word_tokenizer.backend.encode(
        build_string_from_input(built, "<s>", "<|image|>"), add_special_tokens=False
    )
    assert word_tokenizer.encode(text, chat=False, images=images, image_token=2) == expected.ids


def test_a_text_without_images_gets_its_start_token(word_tokenizer):
    assert word_tokenizer.encode("what is it", chat=False, image_token=2) == [0, 3, 4, 5]
