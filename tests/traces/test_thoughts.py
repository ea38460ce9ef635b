"""Thought and answer of a row, separated by published markers."""

from dataclasses import replace

import pytest

from jaxtrace.grading.alignment import steps_of_quote
from jaxtrace.grading.labels import digest, label_of
from jaxtrace.traces.thoughts import split_completion
from tests.grading.rows import answer

META = {"answer": "Lyon"}
PIECES = ["<think>", "Is it", " Lyon?", "</think>", "\n\n", "It is", " Ly", "on", "<|im_end|>"]


def row(pieces, *control, prompt=()):
    """Return a row whose text lacks the pieces that are control tokens."""
    text = "".join(piece for piece in pieces if piece not in control)
    return replace(answer(pieces, META), text=text, prompt_pieces=("<s>", *prompt))


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        (["<think>"], ["</think>"]),
        (["<thinking>"], ["</thinking>"]),
        (["[THINK]"], ["[/THINK]"]),
        (["<seed:think>"], ["</seed:think>"]),
        (["<|START_THINKING|>"], ["<|END_THINKING|>", "<|START_RESPONSE|>"]),
        (["<|channel>", "thought\n"], ["<channel|>"]),
        (
            ["<|channel|>", "analysis", "<|message|>"],
            ["<|end|>", "<|start|>", "assistant", "<|channel|>", "final", "<|message|>"],
        ),
    ],
    ids=lambda pieces: "".join(pieces),
)
@pytest.mark.parametrize("hidden", [False, True], ids=["marked text", "control tokens"])
def test_markers_split_a_row_whether_or_not_its_text_shows_them(opening, closing, hidden):
    markers = [piece for piece in (*opening, *closing) if piece.startswith(("<", "["))] if hidden else []
    whole = row([*opening, "Paris", "? No.", *closing, "Ly", "on.", "<|end|>"], "<|end|>", *markers)
    assert whole.answer == "Lyon."
    assert whole.thought.startswith("Paris? No.")
    assert whole.drawn_text[whole.answer_start :] == "Lyon.<|end|>"
    assert row([*opening, "Lyon", " perhaps"], *markers).answer is None


def test_a_template_may_open_the_thought():
    opened = ("<|im_start|>", "assistant\n", "<think>", "\n")
    assert row(["Not", " Paris", "</think>", "Lyon"], prompt=opened).answer == "Lyon"
    cut = row(["It is", " Lyon"], prompt=opened)
    assert (cut.thought, cut.answer, label_of(cut).by) == ("It is Lyon", None, "thought not closed")
    assert row(["Lyon"], prompt=(*opened, "\n", "</think>", "\n\n")).answer == "Lyon"


def test_a_completion_without_markers_is_its_answer():
    plain = row([" Ly", "on\n", "</s>"], "</s>")
    assert (plain.thought, plain.answer, plain.answer_start) == ("", " Lyon\n", 0)
    assert split_completion("analysis of Lyon").answer == "analysis of Lyon"


def test_quotes_are_found_after_the_thought_and_count_steps_of_the_whole_completion():
    whole = row(PIECES, "<|im_end|>")
    assert steps_of_quote("Lyon", whole) == (6, 7)
    assert steps_of_quote("Is it", whole) is None
    assert steps_of_quote("Lyon", row(PIECES[:3])) is None


def test_labels_name_the_whole_completion():
    whole = row(PIECES, "<|im_end|>")
    assert label_of(whole).completion == digest(whole.text)
