"""Stop strings end a row as cutting its text by hand does: inside tokens, across tokens, in any batch and chunk."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

import jaxtrace as jt
from jaxtrace import ConfigError, Probes, Sample
from jaxtrace.checkpoints.embedded import demo_prompts
from jaxtrace.checkpoints.token_bytes import byte_level_characters
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.stop_strings import StopStrings
from jaxtrace.run import prepare
from jaxtrace.settings.run import run_config
from tests.engine.automaton import automaton

# The model repeats tokens 1 to 6 for ever: "one two\n€ ok end". The euro sign is split between two tokens.
TOKENS = [b"<|turn|>", b"one", b" t", b"wo\n", b"\xe2\x82", b"\xac ok", b" end", b"never"]
AFTER = [1, 2, 3, 4, 5, 6, 1, 7]
STOPS = [
    ("one",),
    ("n",),
    (" two",),
    ("e two\n",),
    ("wo\n€",),
    ("€",),
    ("\n€ o",),
    (" endone t",),
    ("endone two\n€ ok endone",),
    ("ok", "\n"),
    ("ok e", "k"),
    ("neve", "<|turn|>"),
]


def byte_level(tokens):
    """Return a byte-level tokenizer with these tokens, the first one special."""
    characters = {byte: character for character, byte in byte_level_characters().items()}
    names = ["".join(characters[byte] for byte in token) for token in tokens]
    backend = Backend(models.BPE({name: number for number, name in enumerate(names)}, []))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([names[0]])
    return Tokenizer(backend)


@pytest.fixture(scope="module")
def model():
    return dataclasses.replace(automaton(AFTER), tokenizer=byte_level(TOKENS))


def cut_by_hand(row, strings):
    """Return (number of steps, text) of a row that was traced without stop strings."""
    text = ""
    for step, piece in enumerate(row.pieces, 1):
        text += piece
        if any(string in text for string in strings):
            return step, text[: min(text.find(string) for string in strings if string in text)]
    return row.length, row.text


def assert_cut(got, whole, strings):
    """Check rows with stop strings against the same rows without them; return their stop reasons."""
    for row, full in zip(got, whole, strict=True):
        steps, text = cut_by_hand(full, strings)
        assert (row.length, row.text, row.pieces) == (steps, text, full.pieces[:steps])
        for name, values in row.metrics.items():
            np.testing.assert_array_equal(values, full.metrics[name][:steps], err_msg=name)
    return [row.stop for row in got]


def taking_turns(model, steps=3, stop=()):
    """Return rows of six prompts that take turns in two rows of the batch, in chunks of a few steps."""
    prompts = model.encode([[number] for number in (0, 3, 1, 6, 2, 5)], chat=False)
    settings = Settings(Probes.of("output"), 2, max_new_tokens=20, steps=steps, stop=stop)
    return [row for batch in model.generate_rows(prompts, settings) for _, row in batch]


@pytest.fixture(scope="module")
def whole(model):
    return taking_turns(model)


@pytest.mark.parametrize("strings", STOPS, ids=repr)
def test_a_row_ends_with_the_token_that_completes_a_stop_string(model, whole, strings):
    stops = assert_cut(taking_turns(model, stop=strings), whole, strings)
    assert set(stops) == ({"length"} if strings == STOPS[-1] else {"stop_string"})


@pytest.mark.parametrize("steps", [1, 16])
def test_chunks_do_not_matter(model, whole, steps):
    assert_cut(taking_turns(model, steps, (" endone t",)), whole, (" endone t",))


def test_a_string_of_the_prompt_does_not_count(model):
    (row,) = model.generate([[1, 2, 3, 4, 5, 6]], max_new_tokens=20, probes=Probes.of("output"), stop="endone").rows
    assert (row.text, row.pieces[-1], row.length) == ("one two\n€ ok ", "one", 7)


def test_the_reason_is_recorded_at_the_length_limit_and_beside_other_rules(model):
    def reason(prompt=0, **choices):
        return model.generate([[prompt]], max_new_tokens=3, probes=Probes.none(), **choices).rows[0].stop

    assert reason(stop="wo") == "stop_string"
    assert reason(stop="ok") == "length"
    assert reason(stop="wo", stop_tokens=(3,)) == "stop_string"
    assert reason(stop="wo", stop_tokens=(2,)) == "stop_token"
    assert reason(7, stop="nevernever", stop_repeats=2) == "stop_string"
    assert reason(7, stop="nevernevern", stop_repeats=2) == "repeats"


def test_special_tokens_match_by_their_text_and_are_no_part_of_the_answer():
    model = dataclasses.replace(automaton([1, 2, 0]), tokenizer=byte_level(TOKENS[:3]))
    for stop, text in (("<|turn|>", "one t"), (" t<|turn|>", "one"), ("t<|turn|>on", "one "), ("turn|>one", "one t")):
        (row,) = model.generate([[0]], max_new_tokens=9, probes=Probes.of("output"), stop=stop).rows
        assert (row.text, row.stop) == (text, "stop_string")


def test_sampled_rows_draw_the_same_tokens_up_to_the_stop_string():
    model, prompts = jt.load("demo"), [prompt.text for prompt in demo_prompts()][:4] * 2
    options = dict(max_new_tokens=24, probes=Probes.of("output"), sampler=Sample(temperature=1.3), batch_size=3)
    whole = model.generate(prompts, **options).rows
    strings = ("er", ". Q", "Answer: ")
    stops = assert_cut(model.generate(prompts, stop=strings, **options).rows, whole, strings)
    assert "stop_string" in stops


def test_sentencepiece_tokens_match_in_their_place(shared_data):
    """Spaces are part of words, and a line break is a byte token."""
    model = jt.load(str(shared_data / "checkpoints" / "stories260K"))
    options = dict(max_new_tokens=60, probes=Probes.of("output"), batch_size=2)
    prompts = ["Once upon a time", "Lily saw", "The dog was"]
    whole = model.generate(prompts, **options).rows
    for strings in ((" a ", "ed to th"), ("\n", ". She", ". He")):
        stops = assert_cut(model.generate(prompts, stop=strings, **options).rows, whole, strings)
        assert "stop_string" in stops


def test_a_resumed_run_ends_its_rows_where_a_whole_one_does(tmp_path):
    def run(name, **fields):
        defaults = {"stop": ("er", "\n"), "probes": ("output",), "batch_size": 2, "max_new_tokens": 16}
        return run_config(out=tmp_path / name, **{**defaults, "limit": 6, **fields})

    whole = prepare(run("whole")).trace()
    started = prepare(run("cut"))
    with pytest.raises(KeyboardInterrupt):
        started.write(on_rows=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    again = prepare(run("cut"), resume=True)
    assert 0 < again.done < 6
    for row, want in zip(again.trace().rows, whole.rows, strict=True):
        assert (row.text, row.stop, row.pieces) == (want.text, want.stop, want.pieces)
    assert whole.info["stop"] == ["er", "\n"] and "stop_string" in {row.stop for row in whole.rows}
    with pytest.raises(jt.JaxtraceError, match="stop"):
        prepare(run("cut", stop=()), resume=True)


def test_models_without_a_tokenizer_and_empty_strings_are_refused():
    with pytest.raises(ConfigError) as error:
        automaton(AFTER).generate([[0]], stop="one")
    assert str(error.value) == ("stop is 'one', and the model has no tokenizer; drop stop, or give stop_tokens")
    for strings in ("", ("a", "")):
        with pytest.raises(ConfigError, match=r"stop.* it must have at least 1 character"):
            jt.load("demo").generate(["a"], stop=strings)
        with pytest.raises(ConfigError, match=r"stop.* it must have at least 1 character"):
            run_config(stop=strings)
    with pytest.raises(ConfigError, match="score draws no tokens; drop sampler, stop and stop_repeats"):
        run_config(text="a", score=True, stop="a")
    with pytest.raises(ConfigError, match="stop is 'a', and the model has no tokenizer"):
        prepare(run_config(model="llama-3.2-1b", random=True, stop="a"))


TEXTS = st.text("ab\n€", min_size=1, max_size=5)


@given(st.lists(TEXTS, min_size=1, max_size=3), st.lists(st.text("ab\n€x", max_size=4).map(str.encode), min_size=1))
def test_the_automaton_finds_what_a_search_finds(strings, tokens):
    """Cut the characters of the tokens too: the second halves of their bytes stand alone."""
    pieces = [half for token in tokens for half in (token[: len(token) // 2], token[len(token) // 2 :])]
    stops = StopStrings.of(strings, pieces)
    for end in range(len(pieces) + 1):
        text = b"".join(pieces[:end])
        assert stops.matched(np.arange(end)) == any(string.encode() in text for string in strings)
