"""The object that `jaxtrace.load` returns: prompts in, rows out."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrace
from jaxtrace import ConfigError, Probes, Prompt, PromptError
from jaxtrace.checkpoints.tokenizer import EncodedText
from tests.engine.automaton import automaton


class Letters:
    """A minimal tokenizer: one id per letter, no chat template."""

    eos = None
    template = None

    def encode_prompt(self, prompt, settings, **_):
        ids = [ord(letter) - ord("a") for letter in prompt.text]
        return EncodedText(ids, prompt.text, [], "none")

    def join(self, ids, pieces):
        return "".join(pieces)

    def pieces(self, ids):
        return tuple(chr(ord("a") + int(i)) for i in ids)


@pytest.fixture(scope="module")
def letters():
    return dataclasses.replace(automaton([1, 2, 3, 4, 5, 5, 7, 6]), tokenizer=Letters())


def test_generated_rows_have_text_and_pieces(letters):
    row, other = letters.generate(["a", "bg"], max_new_tokens=3, probes=Probes.none()).rows
    assert (row.text, row.pieces, row.prompt_pieces) == ("bcd", ("b", "c", "d"), ("a",))
    assert (other.text, other.pieces, other.prompt_pieces) == ("hgh", ("h", "g", "h"), ("b", "g"))


def test_scored_pieces_are_the_next_tokens(letters):
    row = letters.score(["abce"], probes=Probes.of("output")).rows[0]
    assert (row.text, row.prompt_pieces, row.pieces) == ("abce", ("a", "b", "c", "e"), ("b", "c", "e", ""))
    assert row.stop == "scored"
    np.testing.assert_array_equal(row.metrics["token"], [1, 2, 4, -1])
    top = 4 / np.sqrt(1 / 8 + letters.config.norm_eps)  # the final norm turns a unit vector into one of length √8
    want = top * np.array([1, 1, 0]) - np.log(np.exp(top) + 7)
    np.testing.assert_allclose(row.metrics["logprob"][:3], want, rtol=0, atol=1e-5)
    assert np.isnan(row.metrics["logprob"][3])


@pytest.mark.parametrize("ids", [[0, 1], (0, np.int8(1)), np.array([0, 1], np.uint8), jnp.array([0, 1])])
def test_integers_of_every_array_library_are_token_ids(letters, ids):
    assert letters.generate([ids], max_new_tokens=1, probes=Probes.none()).rows[0].prompt.tokens == (0, 1)


def test_stop_tokens_that_are_no_integers_are_refused(letters):
    with pytest.raises(ConfigError, match=r"stop_tokens is \(2\.5,\); 2\.5 is not a token id"):
        letters.generate(["ab"], stop_tokens=(2.5,))


def test_model_without_a_tokenizer_accepts_ids():
    row = automaton([1, 2, 0]).generate([np.array([0, 1])], max_new_tokens=4, probes=Probes.none()).rows[0]
    assert (row.text, row.pieces, row.prompt_pieces) == ("", ("",) * 4, ("", ""))
    np.testing.assert_array_equal(row.prompt_tokens, [0, 1])
    np.testing.assert_array_equal(row.metrics["token"], [2, 0, 1, 2])


def test_prompts_keep_their_id_and_meta(letters):
    prompt = Prompt(text="ab", id="one", meta={"kind": "test"})
    trace = letters.generate([prompt, Prompt(tokens=(3,))], max_new_tokens=1, probes=Probes.none())
    assert trace.rows[0].prompt is prompt
    assert trace.texts == ["c", "e"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["ab", ""], "prompt 1: is empty; give it some text"),
        ([" \n"], "prompt 0: is empty"),
        ([[0], []], "prompt 1: is empty; give it at least one token"),
        ([Prompt(text="", id="q-7")], "prompt q-7: is empty"),
        ([[0, 8]], "prompt 0: id 8 is outside the vocabulary of 8; remove it"),
        ([[1.9, 3.7]], "prompt 0: 1.9 is not a token id; write a list of integers: [1, 2, 3]"),
        ([[1], np.array([2.0])], "prompt 1: 2.0 is not a token id"),
        ([[1, True]], "prompt 0: True is not a token id"),
        ([["1"]], "prompt 0: '1' is not a token id"),
        ([b"ab"], "prompt 0: b'ab' is not a list of token ids; write it as [1, 2, 3]"),
        ([1, 2], "prompt 0: 1 is not a list of token ids"),
        ([Prompt(tokens=(1.5,), id="q-8")], "prompt q-8: 1.5 is not a token id"),
        ([[-1]], "prompt 0: -1 is not a token id; ids are from 0 to 2147483647"),
        ([[0] * 65], "prompt 0: has 65 tokens, and the context of automaton holds 64; shorten it"),
        ("abc", "prompts must be a list; put the one text in brackets"),
    ],
)
@pytest.mark.parametrize("verb", ["generate", "score"])
def test_prompts_that_cannot_be_fed_are_refused(letters, verb, prompts, message):
    with pytest.raises(PromptError) as error:
        getattr(letters, verb)(prompts)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_text_without_a_tokenizer_is_refused():
    with pytest.raises(PromptError, match="prompt 0: automaton has no tokenizer; give lists of token ids"):
        automaton([1, 0]).generate(["ab"])


def test_text_as_long_as_the_context_is_scored():
    row = automaton([1, 0], context=20).score([[0, 1] * 10], probes=Probes.of("output")).rows[0]
    assert row.length == 20


@pytest.mark.parametrize("verb", ["generate", "score"])
def test_no_prompts_give_no_rows(letters, verb):
    trace = getattr(letters, verb)([])
    assert list(trace.rows) == []
    assert trace.to_xarray().sizes["prompt"] == 0


def test_decoder_module_holds_the_same_weights(model, stacked):
    for one in (model, stacked):
        module = one.decoder
        np.testing.assert_array_equal(module.embedding[...], model.params["embedding"])
        for i, layer in enumerate(model.params["layers"]):
            np.testing.assert_array_equal(module.layers[i].attention.q[...], layer["attention"]["q"])


def test_stories260k_continues_with_its_known_story(shared_data):
    directory = shared_data / "checkpoints" / "stories260K"
    if not directory.is_dir():
        pytest.skip("no stories260K among the shared checkpoints")
    trace = jaxtrace.load(str(directory), stacked=True).generate([[1]], max_new_tokens=32, probes=Probes.none())
    assert trace.texts[0].startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    )
