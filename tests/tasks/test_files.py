"""The task prompts: prompt files of a user."""

import json

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.files import load


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_each_line_of_txt_is_a_prompt(write):
    path = write("mine.txt", "\ufeffThe sky is\r\n Once, \n東京")
    assert load(path, None) == [
        Prompt("The sky is", id="mine-0000"),
        Prompt(" Once, ", id="mine-0001"),
        Prompt("東京", id="mine-0002"),
    ]
    assert len(load(path, 2)) == 2


def test_jsonl_holds_texts_tokens_and_metadata(write):
    lines = [
        {"prompt": "a", "id": "first", "level": 3},
        {"text": "b", "answer": ["x"]},
        {"question": "c", "text": "d", "id": 7},
        {"tokens": [5, 0], "source": None},
        "e\nf",
    ]
    path = write("mine.jsonl", "\n".join(map(json.dumps, lines)))
    assert load(path, None) == [
        Prompt("a", id="first", meta={"level": 3}),
        Prompt("b", id="mine-0001", meta={"answer": ["x"]}),
        Prompt("d", id="7", meta={"question": "c"}),
        Prompt(tokens=(5, 0), id="mine-0003", meta={"source": None}),
        Prompt("e\nf", id="mine-0004"),
    ]


def test_csv_has_a_column_of_texts(write):
    assert load(write("a.csv", 'question,id,answer\n"one, two",x,3\nfour,y,5\n'), None) == [
        Prompt("one, two", id="x", meta={"answer": "3"}),
        Prompt("four", id="y", meta={"answer": "5"}),
    ]
    assert load(write("b.csv", "sentence\nHello there\n"), None) == [Prompt("Hello there", id="b-0000")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a\.txt: holds no prompt; name"),
        ("a.jsonl", "", r"a\.jsonl: holds no prompt"),
        ("a.csv", "", r"a\.csv: holds no prompt"),
        ("a.csv", "prompt\n", r"a\.csv: holds no prompt"),
        ("a.txt", "one\n  \nthree\n", "line 2: an empty prompt; delete the row"),
        ("a.txt", b"one\n\xff\n", "line 2: not UTF-8"),
        ("a.md", "one\n", r"no kind of prompt file ends in '\.md'; give one of \.txt, \.jsonl, \.csv"),
        ("a", "one\n", r"ends in ''; give"),
        ("a.jsonl", '"one"\n\n"two"\n', "line 2: an empty line; delete it"),
        ("a.jsonl", '{"prompt": "one"\n', r"line 1: not JSON \(.*\); write one object"),
        ("a.jsonl", '{"prompt": "one", "p": NaN}\n', r"line 1: not JSON \(NaN is not"),
        ("a.jsonl", '"\\ud800"\n', r"line 1: not JSON \(.*surrogates"),
        ("a.jsonl", "[" * 100_000 + "\n", "line 1: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: neither an object nor a string"),
        ("a.jsonl", '"one"\n{"promt": "two"}\n', "line 2: no 'prompt', 'text', 'question' or 'tokens'"),
        ("a.jsonl", '{"text": 3}\n', "line 1: 'text' is not a text"),
        ("a.jsonl", '{"text": ""}\n', "line 1: an empty prompt"),
        ("a.jsonl", '{"text": "one", "tokens": [1]}\n', "line 1: both 'text' and 'tokens'; keep one"),
        ("a.jsonl", '{"tokens": []}\n', "line 1: 'tokens' is empty"),
        ("a.jsonl", '{"tokens": [1, -1]}\n', "line 1: 'tokens' is not a list of token ids"),
        ("a.jsonl", '{"tokens": [1, true]}\n', "line 1: 'tokens' is not a list"),
        ("a.jsonl", '{"tokens": "1 2"}\n', "line 1: 'tokens' is not a list"),
        ("a.jsonl", '{"text": "one", "id": null}\n', "line 1: the id is not a text"),
        (
            "a.jsonl",
            '{"text": "one", "id": "x"}\n"two"\n{"text": "three", "id": "x"}\n',
            "line 3: the id 'x' is taken by line 1",
        ),
        ("a.csv", "one,two\n1,2\n", "line 1: no column 'prompt', 'text' or 'question' among one, two"),
        ("a.csv", "prompt,id\none,\n", "line 2: the id is not a text"),
        ("a.csv", "prompt,id\n,x\n", "line 2: an empty prompt"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(write, name, text, message):
    with pytest.raises(PromptError, match=message) as error:
        load(write(name, text), None)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_no_file_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(PromptError, match="--data FILE"):
        load(None, None)
    with pytest.raises(PromptError, match=r"gone\.jsonl: No such file"):
        load(tmp_path / "gone.jsonl", None)
    with pytest.raises(PromptError, match=r"is a directory; name one \.txt, \.jsonl, \.csv file"):
        load(tmp_path, None)
