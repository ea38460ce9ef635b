"""Held-out texts of a tuned lens: no text is on both sides."""

import numpy as np
import pytest

from jaxtrace import ConfigError
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.training.settings import LensRecipe
from jaxtrace.training.text_split import split_by_text

RECIPE = LensRecipe(batch=2, length=4)


def numbered(count, copies=1, length=8):
    """Texts whose tokens all are the text's number, each several times."""
    return [np.full(length, i, np.int32) for i in range(count)] * copies


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("copies", "held_out_texts"), [(1, 1), (7, 2)])
def test_copies_of_a_text_stay_together(copies, held_out_texts, seed):
    split = split_by_text(numbered(12, copies), RECIPE.model_copy(update={"seed": seed}), None)
    training, held_out = ({*part.ravel().tolist()} for part in (split.training, split.held_out))
    assert not training & held_out and len(training | held_out) == split.texts == 12
    assert len(held_out) == split.held_out_texts == held_out_texts  # the first that hold a tenth of the sequences
    assert len(split.training) + len(split.held_out) == 24 * copies


def test_a_text_of_most_tokens_is_trained_on():
    texts = [np.zeros(80, np.int32), np.ones(8, np.int32)]
    for seed in range(6):
        split = split_by_text(texts, RECIPE.model_copy(update={"seed": seed}), None)
        assert {*split.held_out.ravel().tolist()} == {1}


def test_case_and_white_space_make_no_other_text():
    tokenizer = Tokenizer.load(demo_path())
    words = ["What is 3 + 5?", "what is  3 + 5?\n", " WHAT IS 3 + 5?", "What is 3 + 6?"]
    texts = [np.array(tokenizer.encode(text, chat=False), np.int32) for text in words]
    assert split_by_text(texts, RECIPE, tokenizer).texts == 2
    assert split_by_text(texts, RECIPE, None).texts == 4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (numbered(3, length=2), "6 tokens of text make 1 sequences of 4, and a lens needs 3; give more text"),
        (numbered(1, copies=9), "all 9 texts are equal, so that none can be held out; give different texts"),
        ([np.zeros(80, np.int32), np.ones(2, np.int32)], "2 different texts make 20 .* to train on and 0 to hold out"),
    ],
)
def test_too_few_texts_are_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        split_by_text(texts, RECIPE, None)
