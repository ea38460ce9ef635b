"""Tokenizers of GGUF metadata equal those of tokenizer.json and SentencePiece; invalid metadata is one line."""

import functools
import itertools
import json
import re
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from transformers import GemmaTokenizer

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.gguf.files import open_gguf
from jaxtrace.checkpoints.gguf.splits import SPLITS
from jaxtrace.checkpoints.gguf.tokenizer import MAX_TOKEN, tokenizer_files
from jaxtrace.checkpoints.token_bytes import byte_level_characters
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import CheckpointError, PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.settings.prompt import PromptSettings

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PIECES = [
    *(
        "Once upon a time",
        " there was",
        "don't",
        "I'LL",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "a",
        ".",
        "...",
        "!?",
    ),
    *(
        "1",
        "12,345",
        " 2024",
        "½",
        "Ⅻ",
        "é",
        "e\u0301",
        "ﬁ",
        "日本語",
        "한국어",
        "العربية",
        "🙂",
        "👩‍👩‍👧",
        "\u200d",
        "\xa0",
        "\x00",
    ),
    *("def f(x):\n    return x", "{}", "</p>", "//", "_x", "CamelCase", "ǅ", "<0x0A>", "▁", "Ġ"),
]
TEMPLATE = "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"


def texts(rng, special=(), count=500):
    """Return texts of random pieces, the first one empty."""
    pieces = [*PIECES, *special]
    return ["", *("".join(rng.choice(pieces, rng.integers(1, 12))) for _ in range(count - 1))]


def metadata_of(spec, **more):
    """Return the metadata that a GGUF file has for the content of a tokenizer.json."""
    added = {token["id"]: token for token in spec["added_tokens"]}
    vocabulary = spec["model"]["vocab"] | {token["content"]: i for i, token in added.items()}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    types = [BYTE if re.fullmatch("<0x[0-9A-F]{2}>", token) else NORMAL for token in tokens]
    for i, token in added.items():
        types[i] = CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
    return fields(model="gpt2", tokens=tokens, token_type=types, merges=merges, **more)


def fields(template=None, **values):
    """Return metadata from the names of the tokenizer's fields."""
    metadata = {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}
    return metadata if template is None else metadata | {"tokenizer.chat_template": template}


def loaded(metadata):
    return Tokenizer.from_files(tokenizer_files(metadata, "m.gguf"), "m.gguf")


def check_equal(tokenizer, reference, samples):
    """Assert that two tokenizers have the same ids, streamed pieces and texts."""
    for text in samples:
        ids = tokenizer.encode(text, chat=False)
        assert ids == reference.encode(text, chat=False), text
        assert tokenizer.pieces(np.array(ids)) == reference.pieces(np.array(ids))
        assert tokenizer.decode(np.array(ids)) == reference.decode(np.array(ids))


@pytest.mark.parametrize("name", ["gpt2", "demo"])
def test_byte_level_ids_and_texts_equal_those_of_the_published_file(name, request, rng):
    directory = demo_path() if name == "demo" else request.getfixturevalue("shared_data") / "tokenizers" / "gpt2"
    spec = json.loads((directory / "tokenizer.json").read_text())
    reference = Tokenizer.load(directory)
    more = {"pre": "smollm", "bos_token_id": 1, "add_bos_token": True} if name == "demo" else {"pre": "gpt-2"}
    tokenizer = loaded(metadata_of(spec, **more))
    special = [token["content"] for token in spec["added_tokens"]]
    check_equal(tokenizer, reference, texts(rng, special, 200))


@pytest.fixture
def smollm2_file(smollm2_gguf):
    """Metadata of SmolLM2's GGUF file."""
    return open_gguf(smollm2_gguf).metadata


def published(smollm2):
    """SmolLM2's tokenizer with the split of digits that its authors publish, and that transformers drops from GGUF."""
    spec = json.loads((smollm2 / "tokenizer.json").read_text())
    assert not [token for token in spec["model"]["vocab"] if len(token) > 1 and re.search(r"\d", token)]
    digits = {"type": "Digits", "individual_digits": True}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, spec["pre_tokenizer"]]}
    reference = Tokenizer.load(smollm2)
    return Tokenizer(Backend.from_str(json.dumps(spec)), reference.special_tokens, reference.template)


@pytest.mark.nightly
def test_smollm2_has_the_ids_texts_and_prompts_of_its_directory(smollm2, smollm2_file, rng):
    tokenizer, reference, directory = loaded(smollm2_file), published(smollm2), Tokenizer.load(smollm2)
    samples = texts(rng, ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"])
    check_equal(tokenizer, reference, samples)
    assert tokenizer.special_tokens == directory.special_tokens
    assert tokenizer.kind == directory.kind
    same = [text for text in samples if not re.search(r"\s\s[\d½Ⅻ]", f"\n{text}")]
    assert len(same) > 250
    for text in same:
        prompt = Prompt(text=text)
        now = datetime(2026, 1, 1)
        assert tokenizer.encode(text, chat=False) == directory.encode(text, chat=False), text
        assert tokenizer.encode_prompt(prompt, PromptSettings(), date=now) == directory.encode_prompt(
            prompt, PromptSettings(), date=now
        )


@pytest.mark.parametrize("stored", ["merges", "scores"])
@pytest.mark.parametrize("name", ["stories260K", "babyllama-105", "TinyStories-656K"])
def test_sentencepiece_ids_and_texts_equal_those_of_the_published_file(name, stored, shared_data, rng):
    directory = shared_data / "checkpoints" / name
    spec = json.loads((directory / "tokenizer.json").read_text())
    metadata = metadata_of(spec) | fields(
        model="llama", bos_token_id=1, eos_token_id=2, unknown_token_id=0, pre="default"
    )
    if stored == "scores":
        joined = [merge.replace(" ", "") for merge in metadata.pop("tokenizer.ggml.merges")]
        tokens = metadata["tokenizer.ggml.tokens"]
        rank = {token: -float(i) for i, token in reversed([*enumerate(joined)])}
        metadata |= fields(scores=[rank.get(token, -1e4) for token in tokens])
    reference = Tokenizer.load(directory)
    samples = texts(rng, [] if name == "TinyStories-656K" else ["<s>", "</s>", "<unk>"], 200)
    check_equal(loaded(metadata), reference, samples)


def sentencepiece_metadata(**more):
    """Return metadata of a small SentencePiece BPE with bytes, user-defined tokens and runs of spaces."""
    letters = [*"▁abcdé日\n"]
    joined = ["ab", "▁a", "abab", "cd", "▁ab", "bc", "aa", "aaa", "▁ab▁", "▁▁a", "dd", "ddd"]
    user, control = ["<tool>", "  ", "    "], ["<s>", "</s>", "<pad>"]
    tokens = ["<unk>", *control, *(f"<0x{byte:02X}>" for byte in range(256)), *user, *joined, *letters]
    types = [UNKNOWN, *[CONTROL] * 3, *[BYTE] * 256, *[USER_DEFINED] * 3, *[NORMAL] * (len(joined) + len(letters))]
    scores = [0.0] * 260 + [-1000.0] * 3 + [-float(i) for i in range(len(joined) + len(letters))]
    return fields(model="llama", tokens=tokens, token_type=types, scores=scores, **more)


def sentencepiece_ids(metadata, text, prefix):
    """Return SentencePiece's ids by its definition: the adjacent pair that makes the best token is joined first."""
    tokens, types, scores = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "scores"))
    ids = {token.replace(" ", "▁"): i for i, token in enumerate(tokens)}
    best = {token: scores[i] for token, i in ids.items() if types[i] == NORMAL}
    whole = sorted((token for token, i in ids.items() if types[i] in (UNKNOWN, CONTROL, USER_DEFINED)), key=len)[::-1]
    runs, named = ([token for token in whole if bool(token.strip("▁")) is kind] for kind in (False, True))
    out = []
    for segment in re.split(f"({'|'.join(map(re.escape, named))})", text):
        if segment in named:
            out.append(ids[segment])
            continue
        spaced = ("▁" * (prefix and bool(segment)) + segment).replace(" ", "▁")
        pieces = re.split(f"({'|'.join(runs)})", spaced)
        symbols = [part for piece in pieces for part in ([piece] if piece in runs else piece)]
        while pairs := [
            (-best[left + right], at)
            for at, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in best and not {left, right} & {*runs}
        ]:
            at = min(pairs)[1]
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        for symbol in symbols:
            known = symbol in runs or symbol in best
            out += [ids[symbol]] if known else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return out


@settings(max_examples=100)
@given(
    text=st.lists(st.sampled_from([*"abcdé \n日z🙂▁", "ab", "aa", "  ", "     ", "<tool>", "</s>"]), max_size=12).map(
        "".join
    )
)
@pytest.mark.parametrize("prefix", [True, False])
def test_merges_of_scores_give_the_ids_of_sentencepiece(text, prefix):
    metadata = sentencepiece_metadata(add_space_prefix=prefix, add_bos_token=False)
    assert small_tokenizer(prefix).encode(text, chat=False) == sentencepiece_ids(metadata, text, prefix)


@functools.cache
def small_tokenizer(prefix):
    return loaded(sentencepiece_metadata(add_space_prefix=prefix, add_bos_token=False))


def test_gemma4_encodes_as_transformers_does(rng):
    spaced = sentencepiece_metadata()
    tokens = spaced["tokenizer.ggml.tokens"]
    merges = ["▁ a", "a b", "▁a b", "ab ab", "c d", "▁ ▁"]
    tokens[tokens.index("  ")] = "▁▁"
    spaced["tokenizer.ggml.token_type"][tokens.index("▁▁")] = NORMAL
    metadata = spaced | fields(model="gemma4", merges=merges, bos_token_id=1, add_bos_token=True, unknown_token_id=0)
    ids = {token: i for i, token in enumerate(tokens)}
    reference = GemmaTokenizer(vocab=ids, merges=[tuple(merge.split(" ")) for merge in merges], unk_token="<unk>")
    reference.add_tokens(["<tool>"])
    tokenizer = loaded(metadata)
    for text in texts(rng, ["ab", "cd", "  ", "a ", "<tool>"], 200):
        ids = reference.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text, chat=False) == ids, text
        assert tokenizer.decode(np.array(ids)) == reference.decode(ids, skip_special_tokens=True)


def byte_level_metadata(merges=(), tokens=(), types=(), **more):
    """Return metadata of the 256 bytes, the tokens that merges make, and other tokens."""
    joined = [merge.replace(" ", "") for merge in merges]
    tokens = [*byte_level_characters(), *joined, *tokens]
    kinds = [NORMAL] * (len(tokens) - len(types)) + [*types]
    return {
        "general.architecture": "llama",
        **fields(
            **{"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": kinds, "merges": [*merges], **more}
        ),
    }


def pieces_of(name, text):
    """Return the pieces that a rule splits a text into, "⏎" for a line break."""
    backend = loaded(byte_level_metadata(pre=name, add_bos_token=False)).backend
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    characters = byte_level_characters()
    pieces = [bytes(characters[c] for c in piece) for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return b"|".join(pieces).decode().replace("\n", "⏎")


SENTENCE = "It's IT'S 12345.\n\n  7 CamelCase  x!/\n\né日本 e\u0301"
GPT_2 = "It|'s| IT|'|S| 12345|.|⏎⏎ | 7| CamelCase| | x|!/|⏎|⏎|é日本| e\u0301"
SMOLLM = "It|'s| IT|'|S| |1|2|3|4|5|.|⏎⏎  |7| CamelCase| | x|!/|⏎|⏎|é日本| e\u0301"
LLAMA_3 = "It|'s| IT|'S| |123|45|.⏎⏎| | |7| CamelCase| | x|!/⏎⏎|é日本| e\u0301"
QWEN_2 = LLAMA_3.replace("|123|45|", "|1|2|3|4|5|")
TEKKEN = QWEN_2.replace("CamelCase", "Camel|Case")
SPLIT = {
    **dict.fromkeys(["default", "gpt-2", "phi-2", "olmo", "mpt"], GPT_2.replace("e|\u0301", "e\u0301")),
    **dict.fromkeys(["smollm", "starcoder", "refact"], SMOLLM),
    **dict.fromkeys(["llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx"], LLAMA_3),
    **dict.fromkeys(["qwen2", "deepseek-r1-qwen"], QWEN_2),
    "gpt-4o": "It's| IT'S| |123|45|.⏎⏎| | |7| Camel|Case| | x|!/⏎⏎|é日本| e\u0301",
    "tekken": TEKKEN,
    "deepseek-coder": "It|'|s| IT|'|S| |1|2|3|4|5|.|⏎|⏎|  |7| CamelCase| | x|!/|⏎|⏎|é|日本| e\u0301",
}
COMPOSED = ("olmo", "mpt", "qwen2")  # normalised to NFC
MARKED = ("gpt-4o", "tekken")  # a combining mark belongs to its letter


@pytest.mark.parametrize("name", SPLITS)
def test_texts_are_split_by_the_rule_that_the_file_names(name):
    end = " é" if name in COMPOSED else " e\u0301" if name in MARKED else " e|\u0301"
    assert pieces_of(name, SENTENCE) == SPLIT[name].removesuffix(" e\u0301") + end


def test_regular_expressions_equal_those_of_transformers():
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    regexes = {
        name: [step["pattern"]["Regex"] for step in split.steps if "pattern" in step] for name, split in SPLITS.items()
    }
    ours = {name: regex[0] for name, regex in regexes.items() if len(regex) == 1}
    assert len(ours) == 9
    assert ours == {name: mapping.GGUF_PRE_TOKENIZER_SPLITS[name] for name in ours}


def test_a_piece_that_is_a_token_is_taken_whole_where_the_published_tokenizer_does():
    names = ("llama-bpe", "smaug-bpe", "tekken", "dbrx", "qwen2", "gpt-2")
    metadata = {name: byte_level_metadata(tokens=["hello"], pre=name, add_bos_token=False) for name in names}
    whole = {name for name in names if loaded(metadata[name]).encode("hello", chat=False) == [256]}
    assert whole == {"llama-bpe", "smaug-bpe", "tekken"}


BOS, EOS = "<|bos|>", "<|eos|>"


@pytest.mark.parametrize(
    ("pre", "flags", "around"),
    [
        ("gpt-2", {}, ("", "")),
        ("gpt-2", {"add_bos_token": True}, (BOS, "")),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, (BOS, EOS)),
        ("gpt-2", {"add_eos_token": True}, ("", EOS)),
        ("llama-bpe", {}, (BOS, "")),
        ("llama-bpe", {"add_bos_token": False}, ("", "")),
        ("tekken", {}, (BOS, "")),
        ("smaug-bpe", {}, ("", "")),
    ],
)
def test_start_and_end_tokens_are_added_as_the_file_says(pre, flags, around):
    metadata = byte_level_metadata(
        tokens=[BOS, EOS], types=[CONTROL, CONTROL], pre=pre, bos_token_id=256, eos_token_id=257
    )
    tokenizer = loaded(metadata | fields(**flags))
    added = tokenizer.backend.encode("a").tokens
    assert added == [token for token in (around[0], "a", around[1]) if token]
    encoded = tokenizer.encode_text("a")
    assert encoded.ids == [256] * bool(around[0]) + [tokenizer.backend.token_to_id("a")]
    assert encoded.end_dropped == bool(around[1])
    assert tokenizer.special_tokens == {"bos_token": BOS, "eos_token": EOS}
    assert tokenizer.eos == 257


def test_sentencepiece_adds_its_usual_start_token_unless_the_file_says_otherwise():
    assert loaded(sentencepiece_metadata()).encode("ab", chat=False)[0] == 1
    assert loaded(sentencepiece_metadata(bos_token_id=3)).encode("ab", chat=False)[0] == 3
    assert loaded(sentencepiece_metadata(add_bos_token=False)).encode("ab", chat=False)[0] != 1


def test_control_and_user_defined_tokens_keep_their_ids_and_their_kind():
    control, user = "<｜begin▁of▁sentence｜>", "        "
    metadata = byte_level_metadata(
        tokens=[control, user, "[PAD258]", "[PAD7]"], types=[CONTROL, USER_DEFINED, UNUSED, UNUSED]
    )
    tokenizer = loaded(metadata)
    ids = tokenizer.encode(f"a{control}b{user}c", chat=False)
    assert (ids[1], ids[3]) == (256, 257)
    assert tokenizer.decode(np.array(ids)) == f"ab{user}c"
    assert tokenizer.pieces(np.array(ids))[1] == control
    assert tokenizer.backend.id_to_token(258) is None  # fills the embedding
    assert tokenizer.backend.id_to_token(259) == "[PAD7]"


def test_tokens_of_phi_3_take_the_white_space_that_follows():
    for architecture, expected in (
        ("phi3", ["<tool>", "▁", "a", "b"]),
        ("llama", ["<tool>", "▁▁", "\n", "▁", "a", "b"]),
    ):
        metadata = sentencepiece_metadata(add_bos_token=False) | {"general.architecture": architecture}
        tokens = metadata["tokenizer.ggml.tokens"]
        tokens[tokens.index("ab")] = "zz"
        tokens[tokens.index("▁a")] = "zzz"
        ids = loaded(metadata).encode("<tool> \n ab", chat=False)
        assert [tokens[i].replace(" ", "▁") for i in ids] == expected


def ends(metadata):
    return json.loads(tokenizer_files(metadata, "m.gguf")["generation_config.json"]).get("eos_token_id")


def test_the_tokens_that_end_a_turn_end_an_answer():
    tokens = [EOS, "<|eot_id|>", "<|im_end|>", "<|eom_id|>"]
    metadata = byte_level_metadata(tokens=tokens, types=[CONTROL] * 4)
    assert ends(metadata) is None
    metadata |= fields(eos_token_id=256)
    assert ends(metadata) == [256]
    assert ends(metadata | fields(template=TEMPLATE)) == [256, 258]
    assert ends(metadata | fields(eot_token_id=257, eom_token_id=259)) == [256, 257, 259]


def test_the_chat_template_is_the_default_one_of_the_file():
    metadata = byte_level_metadata(tokens=[BOS], types=[CONTROL], bos_token_id=256, template=TEMPLATE)
    prompt, plain = Prompt(text="Hi"), PromptSettings()
    assert loaded(metadata).encode_prompt(prompt, plain).text == f"{BOS}<|im_start|>Hi<|im_end|>"
    several = metadata | {"tokenizer.chat_templates": ["rag"], "tokenizer.chat_template.rag": "other"}
    assert loaded(several).encode_prompt(prompt, plain).text == f"{BOS}<|im_start|>Hi<|im_end|>"
    del several["tokenizer.chat_template"]
    with pytest.raises(PromptError, match="none of rag is named default"):
        loaded(several).encode_prompt(prompt, plain)
    assert not loaded(byte_level_metadata()).has_chat_template


def test_an_endless_chat_template_fails_only_when_it_is_used():
    tokenizer = loaded(byte_level_metadata(template="a" * 2_000_000))
    assert tokenizer.encode("a", chat=False)
    with pytest.raises(PromptError, match=r"has more than 1,000,000 characters.*--raw"):
        tokenizer.encode("a", chat=True)


@pytest.mark.parametrize(
    "metadata", [{}, {"general.architecture": "llama"}, fields(model="none"), fields(model="no_vocab")]
)
def test_a_file_without_a_tokenizer_has_none(metadata):
    assert loaded(metadata) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "t5"}, "model is 't5', which is not supported (gpt2, llama, gemma4)"),
        ({"model": ["gpt2"]}, "model is ['gpt2'], which is not supported"),
        ({"model": None}, "model is None"),
        ({"pre": "viking"}, "pre is 'viking', which is not supported (default, gpt-2,"),
        ({"pre": 3}, "pre is 3, not str"),
        ({"pre": None}, "pre is missing"),
        ({"merges": None}, "merges is missing"),
        ({"merges": ["a"]}, "merges holds 'a' at 0, which makes no token of two others"),
        ({"merges": ["a b"]}, "merges holds 'a b' at 0"),
        ({"merges": "a b"}, "merges is 'a b', not an array"),
        ({"tokens": None}, "tokens is missing"),
        ({"tokens": []}, "tokens has no entry"),
        ({"tokens": ["a", b"b"]}, "tokens holds b'b' at 1, not str"),
        ({"tokens": ["a", "b", "a"], "token_type": None}, "tokens holds 'a' at 0 and 2"),
        ({"tokens": ["b" * (MAX_TOKEN + 1)], "token_type": None}, "tokens holds a token of 4,097 characters at 0"),
        ({"token_type": [1]}, "token_type has 1 entries for 256 tokens"),
        ({"token_type": [7] * 256}, "token_type holds 7, which is no type of a token"),
        ({"token_type": [1.5] * 256}, "token_type holds 1.5 at 0, not int"),
        ({"bos_token_id": 256}, "bos_token_id is 256; the file has 256 tokens"),
        ({"eos_token_id": -1}, "eos_token_id is -1"),
        ({"eot_token_id": "a"}, "eot_token_id is 'a', not int"),
        ({"add_bos_token": True}, "bos_token_id is missing, but add_bos_token needs it"),
        ({"add_bos_token": 1}, "add_bos_token is 1, not bool"),
    ],
)
def test_invalid_metadata_of_a_byte_level_tokenizer_are_one_line(changed, message):
    metadata = byte_level_metadata() | {f"tokenizer.ggml.{name}": value for name, value in changed.items()}
    check_refused({key: value for key, value in metadata.items() if value is not None}, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": None}, "scores is missing"),
        ({"scores": [0.0]}, "scores has 1 entries for 283 tokens"),
        ({"scores": [0.0] * 283}, "scores are the same for all tokens, which gives no order"),
        ({"scores": [0.0] * 282 + [float("nan")]}, "scores holds nan at 282"),
        ({"scores": [float("inf")] * 283}, "scores holds inf at 0"),
        ({"scores": ["a"] * 283}, "scores holds 'a' at 0, not float"),
        ({"model": "gemma4"}, "merges is missing"),
        ({"add_space_prefix": "yes"}, "add_space_prefix is 'yes', not bool"),
    ],
)
def test_invalid_metadata_of_a_sentencepiece_tokenizer_are_one_line(changed, message):
    metadata = sentencepiece_metadata() | {f"tokenizer.ggml.{name}": value for name, value in changed.items()}
    check_refused({key: value for key, value in metadata.items() if value is not None}, message)


def test_a_chat_template_that_is_no_text_is_one_line():
    metadata = byte_level_metadata() | {"tokenizer.chat_template.rag": 3}
    with pytest.raises(CheckpointError, match=r"^m.gguf: tokenizer.chat_template.rag is 3, not a text; convert"):
        loaded(metadata)


def check_refused(metadata, message):
    with pytest.raises(CheckpointError) as error:
        loaded(metadata)
    assert str(error.value).startswith(f"m.gguf: tokenizer.ggml.{message}")
    assert str(error.value).endswith("with a current llama.cpp, or use its Hugging Face checkpoint")
    assert "\n" not in str(error.value)


JUNK = [
    0,
    -1,
    2**40,
    True,
    1.5,
    float("inf"),
    "",
    "x",
    "\ud800",
    [],
    [None],
    [0],
    [2**70],
    ["a", "a"],
    ["\ud800"],
    [["a"]],
    {},
    b"x",
]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_junk_in_any_field_is_read_or_refused_in_one_line(kind):
    named = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "padding_token_id": 0, "template": TEMPLATE}
    metadata = byte_level_metadata(**named) if kind == "gpt2" else sentencepiece_metadata(**named)
    for key in metadata:
        for value in JUNK:
            try:
                tokenizer = loaded(metadata | {key: value})
            except CheckpointError as error:
                assert "\n" not in str(error)
            else:
                assert tokenizer.encode("a b", chat=False)
