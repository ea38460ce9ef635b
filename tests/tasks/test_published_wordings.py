"""MMLU in the wordings of a file in the published form; the sentences here are made up."""

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.tasks import load_task

MANAGER = '''
import os
raise SystemExit("this file is read, and not run")

class DatasetManager:
    def get_terse_prompt(self, row):
        """Short."""
        prompt = f'{{Topic}} {row.subject}!\\n'
        prompt += f'{row.question}\\n'
        for i, choice in enumerate(row.choices):
            prompt += f'{chr(65+i)}) {choice}\\n'
        prompt += '\\nLetter: '
        return prompt

    def get_polite_prompt(self, row):
        prompt = 'Please. ' + f'{row.question} '
        for number, option in enumerate(row.choices):
            prompt += f'[{chr(65+number)}: {option}]'
        return prompt

    def get_subjects(self):
        return self.data.subject.unique()
'''
ROW = 'Which {x}?,red,"1, {2}",blue,green,B\n'


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fine_art_test.csv").write_text(ROW)
    (tmp_path / "data_manager.py").write_text(MANAGER)
    return tmp_path


def test_questions_are_asked_in_the_words_of_the_file(copy):
    terse, polite = load_task("mmlu-styles", copy)
    assert terse.text == "{Topic} fine_art!\nWhich {x}?\nA) red\nB) 1, {2}\nC) blue\nD) green\n\nLetter: "
    assert polite.text == "Please. Which {x}? [A: red][B: 1, {2}][C: blue][D: green]"
    assert [prompt.meta["style"] for prompt in (terse, polite)] == ["terse", "polite"]
    assert terse.meta["answer"] == "B" and terse.meta["question"] == polite.meta["question"] == "mmlu-00000"
    assert [prompt.id for prompt in (terse, polite)] == ["mmlu-00000-terse", "mmlu-00000-polite"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def f(:", r"data_manager.py: not Python \(.*\); name a copy of the published repository"),
        ("x = 1", "data_manager.py: has no method get_STYLE_prompt; name a copy"),
        ("def get_a_prompt(self, row):\n    return other\n    x = row.answer", "line 2: puts a prompt together"),
        ("def get_a_prompt(self, row):\n    while 1: pass", "line 2: puts a prompt together in another way"),
        ("def get_a_prompt(self, row):\n    p = f'{row.subject:>9}'", "line 2: puts a prompt together in another way"),
        ("def get_a_prompt(self, row):\n    return f'{row.question}'", "line 2: puts a prompt together in another way"),
        ("def get_a_prompt(self, row):\n    p = 'a'\n    p = 'b'\n    return p", "line 3: puts a prompt together"),
        (
            "def get_a_prompt(self, row):\n    p = ''\n    for i, c in row:\n        p += chr(97 + i)\n    return p",
            "line 4: puts a prompt together",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(copy, content, message):
    (copy / "data_manager.py").write_text(content)
    with pytest.raises(PromptError, match=message):
        load_task("mmlu-styles", copy)
