"""Tasks by name."""

import re

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.tasks import Prompt, known_tasks, load_task


def test_a_task_is_loaded_by_name(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("one\ntwo\n")
    assert load_task("prompts", path, 1) == [Prompt("one", id="mine-0000")]
    path.write_text("one two\n\nthree\n")
    assert [prompt.text for prompt in load_task("tinystories", path)] == ["one two", "three"]


def test_an_unknown_task_is_refused_with_the_known_names():
    message = "no task is named 'mmlx'; did you mean 'mmlu'? choose one of truthfulqa, tinystories"
    with pytest.raises(PromptError, match=re.escape(message)):
        load_task("mmlx")


def test_every_task_is_described_in_a_line():
    assert all(task.text and "\n" not in task.text for task in known_tasks().values())
