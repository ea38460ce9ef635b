"""The task formats: requests for texts of three formats."""

from collections import Counter

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.tasks import known_tasks, load_task


def test_each_built_in_topic_has_three_requests():
    prompts = load_task("formats")
    assert len(prompts) == known_tasks()["formats"].size == 546
    assert Counter(prompt.meta["format"] for prompt in prompts) == dict.fromkeys(("chat", "poem", "science"), 182)
    assert len({prompt.meta["topic"] for prompt in prompts}) == 182
    assert len({prompt.text for prompt in prompts}) == len({prompt.id for prompt in prompts}) == 546
    for prompt in prompts:
        assert prompt.text.endswith(f" about {prompt.meta['topic']}")


def test_a_users_topics_are_read(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("green tea\n\n  owls \n")
    prompts = load_task("formats", path, 4)
    assert [prompt.text for prompt in prompts] == [
        "Simulate a chat log about green tea",
        "Write a poem about green tea",
        "Write a scientific piece about green tea",
        "Simulate a chat log about owls",
    ]
    path.write_text("\n")
    with pytest.raises(PromptError, match="holds no prompt"):
        load_task("formats", path)
