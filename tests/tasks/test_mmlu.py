"""MMLU, from CSV with a header and without, and from the hub's Parquet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import PromptError
from jaxtrace.tasks import Prompt, load_task
from jaxtrace.tasks.mmlu import REQUEST

DATA = Path(__file__).parents[3] / "shared" / "data" / "mmlu" / "test"
HEADER = "question,choice0,choice1,choice2,choice3,answer\n"
CHOICES = ["red", "1, 2", "answer", "blue"]
FIRST = Prompt(
    f"Which?\nA. red\nB. 1, 2\nC. answer\nD. blue\n{REQUEST}\nAnswer:",
    id="mmlu-00000",
    meta={"subject": "art", "choices": CHOICES, "answer": "B"},
)


def test_csv_is_read_with_and_without_a_header(tmp_path):
    row = 'Which?,red,"1, 2",answer,blue,'
    (tmp_path / "art_test.csv").write_text(HEADER + row + "1\n")
    assert load_task("mmlu", tmp_path / "art_test.csv") == [FIRST]
    (tmp_path / "art_test.csv").write_text(row + "B\n")
    assert load_task("mmlu", tmp_path / "art_test.csv") == [FIRST]


def test_the_plain_task_asks_as_published(tmp_path):
    (tmp_path / "art_test.csv").write_text('Which?,red,"1, 2",answer,blue,B\n')
    (plain,) = load_task("mmlu-plain", tmp_path / "art_test.csv")
    assert plain.text == "Which?\nA. red\nB. 1, 2\nC. answer\nD. blue\nAnswer:"
    assert (plain.id, plain.meta) == (FIRST.id, FIRST.meta)


def test_parquet_is_read_and_its_columns_are_checked(tmp_path):
    path = tmp_path / "test.parquet"
    rows = [{"question": "Which?", "subject": "art", "choices": CHOICES, "answer": 1}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert load_task("mmlu", path) == [FIRST]
    pq.write_table(pa.Table.from_pylist([{"question": "Which?"}]), path)
    with pytest.raises(PromptError, match="lacks the column 'subject'"):
        load_task("mmlu", path)


def test_short_questions_are_asked_in_four_styles(tmp_path):
    rows = [f'{question},red,"1, 2",answer,blue,1\n' for question in ("Which?", "o" * 1001, "o" * 1000)]
    (tmp_path / "fine_art_test.csv").write_text(HEADER + "".join(rows))
    prompts = load_task("mmlu-styles", tmp_path / "fine_art_test.csv")
    assert [prompt.meta["style"] for prompt in prompts] == ["base", "instruct", "thinking", "humble"] * 2
    assert [prompt.meta["question"] for prompt in prompts] == ["mmlu-00000"] * 4 + ["mmlu-00002"] * 4
    base = "Subject: fine art\nQuestion: Which?\nChoices:\nA. red\nB. 1, 2\nC. answer\nD. blue\nAnswer:"
    assert prompts[0].text == base and all(prompt.text.endswith(f"\n\n{base}") for prompt in prompts[1:4])
    assert len({prompt.text for prompt in prompts}) == len({prompt.id for prompt in prompts}) == 8
    assert prompts[3].meta["answer"] == "B" and prompts[3].meta["choices"] == CHOICES
    assert len(load_task("mmlu-styles", tmp_path / "fine_art_test.csv", limit=5)) == 5


@pytest.mark.parametrize(
    "row", ["Which?,a,b,c,d,4", "Which?,a,b,c,A", " ,a,b,c,d,0", "Which?", "Which?,a,b,c,d,AB", ""]
)
def test_a_row_that_is_no_question_is_refused(tmp_path, row):
    path = tmp_path / "art_test.csv"
    path.write_text(HEADER + row + "\n")
    with pytest.raises(PromptError, match="line 2: no question with four choices and an answer"):
        load_task("mmlu", path)


@pytest.mark.skipif(not DATA.exists(), reason="MMLU is missing")
def test_the_published_files():
    prompts = load_task("mmlu", DATA)
    assert len(prompts) == 14042
    assert len({prompt.meta["subject"] for prompt in prompts}) == 57
    assert prompts[0].meta == {"subject": "abstract_algebra", "choices": ["0", "4", "2", "6"], "answer": "B"}
