"""SimpleQA, from its authors' CSV."""

from pathlib import Path

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.tasks import Prompt, load_task

DATA = Path(__file__).parents[3] / "shared" / "data" / "simpleqa" / "simple_qa_test_set.csv"
HEADER = "metadata,problem,answer\n"
ROW = "\"{'topic': 'Art', 'answer_type': 'Person', 'urls': ['https://x.org']}\",Who painted it?,\"Him, surely\"\n"


def test_csv_is_read_with_its_metadata(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + ROW + ROW)
    meta = {"answer": "Him, surely", "topic": "Art", "answer_type": "Person", "urls": ["https://x.org"]}
    assert load_task("simpleqa", path, 1) == [Prompt("Who painted it?", id="simpleqa-0000", meta=meta)]
    assert [prompt.id for prompt in load_task("simpleqa", path)] == ["simpleqa-0000", "simpleqa-0001"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "holds no prompt"),
        ("problem,answer\nWhy?,x\n", "lacks the column 'metadata'"),
        (HEADER + ROW.replace("Who painted it?", " "), "line 2: an empty question"),
        (HEADER + "[1],Why?,x\n", "line 2: its metadata is not a Python dict"),
        (HEADER + "open(),Why?,x\n", "line 2: its metadata is not a Python dict"),
    ],
)
def test_faulty_csv_is_refused(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(PromptError, match=message):
        load_task("simpleqa", path)


@pytest.mark.parametrize("size", [9_000, 100_000])
@pytest.mark.parametrize("piece", ["-", "(", "[", "{", "~", "1+", "not ", "{'a':", "lambda:"])
def test_deep_metadata_is_refused(tmp_path, piece, size):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + f'"{piece * (size // len(piece))}",Why?,x\n')
    with pytest.raises(PromptError, match="line 2: its metadata is not a Python dict; delete the row"):
        load_task("simpleqa", path)


@pytest.mark.parametrize("value", ["b'x'", "{1, 2}", "1j", "...", "'\\ud800'", "1e999", "9" * 5000])
def test_metadata_that_json_cannot_hold_is_refused(tmp_path, value):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + f"\"{{'a': {value}}}\",Why?,x\n")
    with pytest.raises(PromptError, match="line 2: its metadata is not a Python dict; delete the row"):
        load_task("simpleqa", path)


@pytest.mark.skipif(not DATA.exists(), reason="simple_qa_test_set.csv is missing")
def test_the_published_file():
    prompts = load_task("simpleqa", DATA)
    assert len(prompts) == 4326
    assert prompts[0].text == "Who received the IEEE Frank Rosenblatt Award in 2010?"
    assert prompts[0].meta["answer"] == "Michio Sugeno"
    assert all(prompt.meta["topic"] for prompt in prompts)
