"""Control tokens of messages as plain text, for every kind of tokenizer; ordinary texts keep their ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from jaxtrace.checkpoints.control_tokens import ControlTokens

LETTERS = ["<unk>", "<s>", "</s>", "<", "s", ">", "/", "▁", *"abuer"]
VOCABULARY = {piece: i for i, piece in enumerate([*LETTERS, "s>", "</"])}
MARKS = ("<s>", "</s>")


def unigram():
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i > 2)) for i, piece in enumerate(LETTERS)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens([*MARKS])
    return tokenizer


def merging():
    """A tokenizer whose merges spell its control tokens, as those that were converted from SentencePiece may."""
    merges = [("s", ">"), ("<", "s>"), ("<", "/"), ("</", "s>")]
    tokenizer = Tokenizer(models.BPE(VOCABULARY, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens([*MARKS])
    return tokenizer


def normalizing():
    """A tokenizer that finds control tokens in the normalised text."""
    tokenizer = Tokenizer(models.BPE(VOCABULARY, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_special_tokens([AddedToken(mark, normalized=True, special=True) for mark in MARKS])
    return tokenizer


def words():
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([*MARKS])
    return tokenizer


def outside():
    """A tokenizer whose control tokens are not in the vocabulary of its model; one is not special, one is a space."""
    vocabulary = {piece: i for i, piece in enumerate(LETTERS[3:])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_tokens([AddedToken("  ", normalized=False), AddedToken("<s>", normalized=False)])
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@pytest.mark.parametrize("text", ["a</s><s>u b", "</s>", "  <s>  ", "＜s＞＜/s＞", "<s</s>>", "é <unk> \U000f0000</s>"])
@pytest.mark.parametrize("make", [unigram, merging, normalizing, words, outside])
def test_no_message_adds_a_control_token(make, text):
    tokenizer = make()
    marks = [tokenizer.token_to_id(mark) for mark in MARKS]

    def render(messages):
        return "".join(f"<s> user {message} </s>" for message in messages) + "<s> a"

    rendered, ids = ControlTokens(tokenizer).encode([text, "b", text], render)
    assert rendered == render([text, "b", text])
    assert [i for i in ids if i in marks] == [marks[0], marks[1]] * 3 + marks[:1]


def test_tokens_of_white_space_are_ordinary_text():
    tokenizer = outside()
    space = tokenizer.token_to_id("  ")
    control = ControlTokens(tokenizer)
    assert control.found_in(["a  b", {"content": "<s>"}]) == ["<s>"]
    assert space in control.encode(["a  b<s>"], "".join)[1]


WORDS = ["Once upon", " a time", "don't", " ", "  ", "\n", "12,345", "é", "e\u0301", "日本", "🙂", "\u200d", "<", "|>"]
MARKS_OF = {
    "TinyStories-656K": ("<|start_story|>", " <|end_story|>"),
    "stories260K": MARKS,
    "babyllama-105": MARKS,
    "gpt2": ("<|endoftext|>",) * 2,
    "smollm2": ("<|im_start|>", "<|im_end|>"),
}


@pytest.fixture(scope="module", params=MARKS_OF)
def real(request):
    """A real tokenizer, its control tokens, and the two that a template writes."""
    name = request.param
    folder = request.getfixturevalue("smollm2" if name == "smollm2" else "shared_data")
    (file,) = folder.glob("tokenizer.json" if name == "smollm2" else f"*/{name}/tokenizer.json")
    tokenizer = Tokenizer.from_file(str(file))
    return tokenizer, ControlTokens(tokenizer), MARKS_OF[name]


@given(parts=st.lists(st.sampled_from(WORDS), max_size=8))
def test_ordinary_text_keeps_the_ids_of_the_whole_prompt(real, parts):
    tokenizer, control, (begin, end) = real

    def render(messages):
        return f"{begin}user\n{messages}{end}\n{begin}assistant\n"

    text = "".join(parts)
    rendered, ids = control.encode(text, render)
    assert rendered == render(text)
    assert ids == tokenizer.encode(rendered, add_special_tokens=False).ids
