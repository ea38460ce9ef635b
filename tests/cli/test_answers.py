"""Answers on the terminal: the least certain tokens marked, and nothing in them that a terminal would obey."""

import io

import numpy as np
import pytest
from rich.console import Console

from jaxtrace.cli.answers import answer_text
from jaxtrace.prompts import Prompt
from jaxtrace.traces.row import Row


def row(pieces, entropies, text=None, *, stop="length", prompt_steps=0, tokens=None):
    metrics = {"token": np.array(tokens or range(len(pieces))), "entropy": np.array(entropies, np.float32)}
    text = "".join(pieces) if text is None else text
    return Row(Prompt(id="q-1"), np.array([0]), ("x",), metrics, tuple(pieces), text, stop, prompt_steps)


def lines(answer, encoding="utf-8"):
    """Return the lines as a pipe shows them, without colours."""
    out = io.StringIO()
    Console(file=out, width=200).print(answer_text(answer, encoding), soft_wrap=True)
    return out.getvalue().splitlines()


def test_the_tenth_of_the_tokens_with_the_highest_entropy_is_marked():
    pieces = ["It", " is", " Ly", "on", ",", " I", " think", ".", " Or", " not", "?"]
    entropies = [0.1, 0.2, 2.5, 0, 0.1, 1.75, 0.3, 0.2, 0.9, 0.1, 0]
    assert lines(row(pieces, entropies)) == [
        "q-1",
        "  It is« Ly»on,« I» think. Or not?",
        "  least certain, in nats: ' Ly' 2.50, ' I' 1.75",
        "",
    ]


def test_tokens_of_one_character_are_one_piece_with_their_largest_entropy():
    assert lines(row(["a", "", "", "東", "b"], [0.1, 0.2, 3, 0.1, 0.1]))[1:3] == [
        "  a«東»b",
        "  least certain, in nats: '東' 3.00",
    ]


@pytest.mark.parametrize(
    ("pieces", "text", "shown"),
    [
        (["Yes", "</s>"], "Yes", "  «Yes»"),
        (["</s>"], "", "  "),
        ([" Yes", "</s>"], "Yes", "  « Yes»"),
        (["Yes", ".\nQ", ": No"], "Yes.", "  Yes«.»"),
    ],
)
def test_what_follows_the_answer_is_not_shown(pieces, text, shown):
    assert lines(row(pieces, range(len(pieces)), text, stop="stop_token"))[1] == shown


def test_recorded_positions_of_the_prompt_are_not_shown():
    assert lines(row(["a", "b", "c"], [9, 0, 1], "bc", prompt_steps=1))[1] == "  b«c»"


def test_without_entropies_nothing_is_marked():
    assert lines(row(["a", "b"], [np.nan, np.nan])) == ["q-1", "  ab", ""]


def test_without_a_tokenizer_the_ids_are_shown():
    assert lines(row(["", "", ""], [0, 2, 1], tokens=[5, 7, 6]))[1] == "  5 «7 »6 "


def test_markup_and_control_characters_are_shown_and_not_obeyed():
    text = "[red]:smile:\x1b[2J\r\x9b1m\u202e\u200b\ud800\U000e0041\tend"
    shown = lines(row([text, "!"], [0, 1]))[1]
    assert shown == r"  [red]:smile:\x1b[2J\r\x9b1m\u202e\u200b\ud800\U000e0041\tend«!»"


def test_lines_of_an_answer_are_indented():
    assert lines(row(["a\n", "jaxtrace: error"], [0, 1]))[1:3] == ["  a", "  «jaxtrace: error»"]


def test_characters_that_the_terminal_lacks_are_escaped():
    assert lines(row(["né", "😀"], [0, 1]), "ascii")[1] == r"  n\xe9\xab\U0001f600\xbb"
