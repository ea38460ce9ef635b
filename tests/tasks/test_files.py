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
    assert load(write("b.csv", "Prompt\nHello there\n"), None) == [Prompt("Hello there", id="b-0000")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_cells_are_separated_by_the_character_of_the_header(write, delimiter):
    rows = [["id", "Question", "answer"], ["x", '"What is 2+2?, 3;4\t5|6\n""Hm"""', "4"], ["y", "four", ""]]
    path = write("a.csv", "\ufeff" + "".join(delimiter.join(row) + "\r\n" for row in rows))
    assert load(path, None) == [
        Prompt('What is 2+2?, 3;4\t5|6\n"Hm"', id="x", meta={"answer": "4"}),
        Prompt("four", id="y", meta={"answer": ""}),
    ]


def test_a_quoted_header_names_its_columns(write):
    assert load(write("a.csv", '"prompt";"level"\n"one; two";3\n'), None)[0].text == "one; two"


def test_messages_are_the_turns_of_a_chat(write):
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Who?"},
    ]
    path = write("a.jsonl", json.dumps({"messages": turns, "level": 1}))
    assert load(path, None) == [Prompt("Who?", id="a-0000", meta={"level": 1}, messages=tuple(turns))]


def test_a_system_message_precedes_the_other_turns(write):
    user, system = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}
    records = [{"prompt": "Hi", "system": "Be brief."}, {"messages": [user], "system": "Be brief."}]
    prompts = load(write("a.jsonl", "\n".join(map(json.dumps, records))), None)
    assert [(prompt.text, prompt.messages, prompt.meta) for prompt in prompts] == [("Hi", (system, user), {})] * 2
    prompts = load(write("a.csv", "prompt,system\nHi,Be brief.\nHo,\n"), None)
    assert [prompt.messages for prompt in prompts] == [(system, user), None]


@pytest.mark.parametrize(
    "name",
    [
        *("temperature", "top_p", "topP", "Top-P", "max_new_tokens", "maxNewTokens", "max_tokens", "enable_thinking"),
        *("template_args", "chat_template_kwargs", "repetition_penalty", "stop_strings", "raw", "seed", "tools"),
    ],
)
def test_a_field_that_reads_like_a_setting_is_refused(write, name):
    message = f"line 1: '{name}' is a setting of a run, not a prompt's; give it to the run, or rename the field"
    with pytest.raises(PromptError, match=message):
        load(write("a.jsonl", json.dumps({"prompt": "one", name: 1})), None)
    with pytest.raises(PromptError, match=f"'{name}' is a setting"):
        load(write("a.csv", f"prompt,{name}\none,1\n"), None)


@pytest.mark.parametrize(
    ("name", "field"), [("System", "system"), ("system_prompt", "system"), ("image", "images"), ("message", "messages")]
)
def test_a_misspelt_field_of_a_prompt_is_refused(write, name, field):
    with pytest.raises(PromptError, match=f"'{name}' is not a field of a prompt; write it as '{field}', or rename it"):
        load(write("a.jsonl", json.dumps({"prompt": "one", name: "x"})), None)


def test_fields_that_are_usual_in_data_sets_are_metadata(write):
    meta = {"task": "sums", "score": 0.5, "model": "m", "question": "q", "answer": "a", "level": 3}
    assert load(write("a.jsonl", json.dumps({"prompt": "one", **meta})), None)[0].meta == meta


def _chat(messages, **fields):
    return json.dumps({"messages": messages, **fields})


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
        ("a.jsonl", '"one"\n{"promt": "two"}\n', "line 2: no 'prompt', 'text', 'question', 'messages' or"),
        ("a.jsonl", '{"text": 3}\n', "line 1: 'text' is not a text"),
        ("a.jsonl", '{"text": ""}\n', "line 1: an empty prompt"),
        ("a.jsonl", '{"text": "one", "tokens": [1]}\n', "line 1: both 'text' and 'tokens'; keep one"),
        ("a.jsonl", '{"tokens": []}\n', "line 1: 'tokens' is empty"),
        ("a.jsonl", '{"tokens": [1, -1]}\n', "line 1: 'tokens': -1 is not a token id"),
        ("a.jsonl", '{"tokens": [1, true]}\n', "line 1: 'tokens': True is not a token id"),
        ("a.jsonl", '{"tokens": [1.9, 616.7]}\n', r"line 1: 'tokens': 1\.9 is not a token id; write a list"),
        ("a.jsonl", '{"tokens": [1.0]}\n', r"line 1: 'tokens': 1\.0 is not a token id"),
        ("a.jsonl", '{"tokens": ["1"]}\n', "line 1: 'tokens': '1' is not a token id"),
        ("a.jsonl", '{"tokens": [[1, 2]]}\n', r"line 1: 'tokens': \[1, 2\] is not a token id"),
        ("a.jsonl", '{"tokens": "1 2"}\n', "line 1: 'tokens': '1 2' is not a list of token ids"),
        ("a.jsonl", '{"tokens": null}\n', "line 1: 'tokens': None is not a list of token ids"),
        ("a.jsonl", '{"tokens": [1], "system": "Hm."}\n', "line 1: 'system' beside 'tokens'"),
        ("a.jsonl", '{"messages": [], "prompt": "a"}\n', "line 1: both 'prompt' and 'messages'; keep one"),
        ("a.jsonl", '{"prompt": "a", "system": 3}\n', "line 1: 'system' is not a text"),
        ("a.jsonl", _chat([]), "line 1: 'messages' is not a list of turns"),
        ("a.jsonl", _chat("Hi"), "line 1: 'messages' is not a list of turns"),
        ("a.jsonl", _chat(["Hi"]), "turn 1: is not an object with a role and content"),
        ("a.jsonl", _chat([{"role": "user"}]), "turn 1: is not an object with a role and content"),
        (
            "a.jsonl",
            _chat([{"role": "human", "content": "Hi"}]),
            "turn 1: role is 'human'; it must be one of",
        ),
        ("a.jsonl", _chat([{"role": ["user"], "content": "Hi"}]), r"turn 1: role is \['user'\]"),
        ("a.jsonl", _chat([{"role": "user", "content": " "}]), "turn 1: content is ' '; write a text"),
        ("a.jsonl", _chat([{"role": "user", "content": None}]), "turn 1: content is None"),
        ("a.jsonl", _chat([{"role": "user", "content": "Hi", "name": "Bo"}]), "turn 1: has 'name'; only 'role'"),
        (
            "a.jsonl",
            _chat([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]),
            "ends with the turn of the assistant; end with one of the user",
        ),
        (
            "a.jsonl",
            _chat([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], system="c"),
            "'system' beside a turn of the system",
        ),
        ("a.jsonl", '{"text": "one", "id": null}\n', "line 1: the id is not a text"),
        (
            "a.jsonl",
            '{"text": "one", "id": "x"}\n"two"\n{"text": "three", "id": "x"}\n',
            "line 3: the id 'x' is taken by line 1",
        ),
        ("a.csv", "one,two\n1,2\n", "line 1: no column 'prompt', 'text' or 'question' among one, two; name the col"),
        ("a.csv", "sentence\nHello\n", "line 1: no column 'prompt', 'text' or 'question' among sentence"),
        ("a.csv", "What is 2+2?\nWhat is 3+3?\n", r"line 1: no column .* among What is 2\+2\?; name the columns"),
        ("a.csv", "What is 2+2?;4\nWhat is 3+3?;6\n", r"line 1: no column .* among What is 2\+2\?;4"),
        ("a.csv", '"Who, then?"\n"Me"\n', "line 1: no column .* among Who, then?"),
        ("a.csv", "prompt;answer\none;1;2\n", "line 2: 3 cells where the header has 2; quote a cell that holds a semi"),
        ("a.csv", 'prompt;answer\n"one;1\n', "line 2: .*; correct the quotes"),
        ("a.csv", "prompt,messages\none,two\n", "line 2: both 'prompt' and 'messages'"),
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
