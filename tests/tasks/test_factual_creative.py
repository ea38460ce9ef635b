"""The task factual-creative: requests for facts and for inventions."""

from collections import Counter

import numpy as np
import pytest

from jaxtrace.errors import PromptError
from jaxtrace.tasks import load_task


def test_the_built_in_requests_have_equal_lengths():
    prompts = load_task("factual-creative")
    assert Counter(prompt.meta["condition"] for prompt in prompts) == {"factual": 100, "creative": 100}
    assert len({prompt.text for prompt in prompts}) == len({prompt.id for prompt in prompts}) == 200
    factual, creative = prompts[::2], prompts[1::2]
    assert [prompt.meta["topic"] for prompt in factual] == [prompt.meta["topic"] for prompt in creative]
    assert len({prompt.meta["topic"] for prompt in factual}) == 100
    words, characters = (
        np.array([[size(prompt.text) for prompt in pair] for pair in zip(factual, creative, strict=True)])
        for size in (lambda text: len(text.split()), len)
    )
    assert (words[:, 0] == words[:, 1]).all()
    assert abs(np.diff(characters.mean(0))) < 2
    assert all("\n" not in prompt.text and prompt.text.endswith(".") for prompt in prompts)


def test_a_users_file_is_read_and_its_faults_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("topic,factual,creative\ntea,What is tea?,Sing of tea.\n")
    factual, creative = load_task("factual-creative", path)
    assert (factual.text, creative.text) == ("What is tea?", "Sing of tea.")
    assert creative.meta == {"condition": "creative", "topic": "tea"}
    path.write_text("topic,factual\ntea,What is tea?\n")
    with pytest.raises(PromptError, match="lacks the column 'creative'"):
        load_task("factual-creative", path)
    path.write_text("topic,factual,creative\ntea,What is tea?, \n")
    with pytest.raises(PromptError, match="line 2: an empty request"):
        load_task("factual-creative", path)
