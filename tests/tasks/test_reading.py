"""Readers of data files name every fault in one line, with its place and a remedy."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks import load_task, multiple_choice, reading
from jaxtrace.tasks.reading import read_csv, read_lines, take


def test_lines_are_numbered_and_the_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntw\xc3\xb6")
    assert list(read_lines(path)) == [(1, "one\r\n"), (2, "twö")]


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(PromptError, match=r"a\.txt, line 2: not UTF-8 \(.*\); save it as UTF-8"):
        list(read_lines(path))


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(PromptError, match=r"none\.txt: No such file or directory; name a file"):
        list(read_lines(tmp_path / "none.txt"))
    with pytest.raises(PromptError, match="Is a directory; name a file"):
        list(read_lines(tmp_path))


def test_csv_rows_have_the_line_they_start_on(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\r\n"one\r\ntwo",2\r\nthree,"4, 5"\r\n')
    assert list(read_csv(path)) == [(2, {"a": "one\r\ntwo", "b": "2"}), (4, {"a": "three", "b": "4, 5"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n\n3,4\n", "line 3: an empty row; delete it"),
        ("a,b\n1,2\n,\n", "line 3: an empty row"),
        ("a,b\n1,2,3\n", "line 2: 3 cells where the header has 2; quote"),
        ("a,b\n1\n", "line 2: 1 cells where the header has 2"),
        ('a,b\n1,"2\n3,4\n', "line 2: unexpected end of data; correct the quotes"),
        ('a,b\n"1"x,2\n', "line 2: .*; correct the quotes"),
        ("a,a\n1,2\n", "line 1: two columns are named 'a'"),
    ],
)
def test_faulty_csv_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(PromptError, match=r"a\.csv, " + message):
        list(read_csv(path))


def test_take_reads_no_further_than_the_limit(tmp_path):
    def prompts():
        yield Prompt("one")
        raise AssertionError

    assert take(prompts(), 1, tmp_path) == [Prompt("one")]
    with pytest.raises(PromptError, match="limit of 0"):
        take([Prompt("one")], 0, tmp_path)
    with pytest.raises(PromptError, match="holds no prompt"):
        take([], None, tmp_path)


GSM8K = {"question": ["1 + 1?"], "answer": ["#### 2"]}
MMLU = {"subject": ["art"], "question": ["Which?"], "choices": [["a", "b", "c", "d"]], "answer": [1]}
TARGETS = [{"choices": ["a", "b"], "labels": [1, 0]}]
CHOICES = {"question": ["Which?"], "mc1_targets": TARGETS, "mc2_targets": TARGETS}
TRUTHFULQA = {name: ["a"] for name in ("type", "category", "question", "best_answer", "source")}
TRUTHFULQA |= {"correct_answers": [["a"]], "incorrect_answers": [["b"]]}
LOADERS = {
    "gsm8k": (GSM8K, lambda path: load_task("gsm8k", path)),
    "mmlu": (MMLU, lambda path: load_task("mmlu", path)),
    "truthfulqa": (TRUTHFULQA, lambda path: load_task("truthfulqa", path)),
    "choices": (CHOICES, lambda path: multiple_choice.load(str(path))),
}
NOT_TEXTS = [[7], [None], [b"a"], [["a"]], [{"a": 1}], [True], [1.5], [datetime.datetime(2024, 1, 31)]]


def parquet(path, columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("task", LOADERS)
def test_texts_of_parquet_may_have_any_encoding_but_no_other_type(tmp_path, task):
    columns, load = LOADERS[task]
    expected = load(parquet(tmp_path / "a.parquet", columns))
    for text in (pa.array(columns["question"]).dictionary_encode(), pa.array(columns["question"], pa.large_string())):
        assert load(parquet(tmp_path / "a.parquet", columns | {"question": text})) == expected
    for values in NOT_TEXTS:
        path = parquet(tmp_path / "a.parquet", columns | {"question": values})
        with pytest.raises(
            PromptError, match=r"a\.parquet, row 1: .* \(question: Input should be a valid string\); name"
        ):
            load(path)


@pytest.mark.parametrize(
    ("task", "column", "values"),
    [
        *(("mmlu", "choices", values) for values in (["abcd"], [[1, 2, 3, 4]], [[None] * 4], [["a"] * 3], [None])),
        *(("mmlu", "answer", values) for values in ([4], [-1], [1.0], [None], [True], [10**15])),
        *(("mmlu", "subject", values) for values in ([["a"]], [None])),
        *(("truthfulqa", "correct_answers", values) for values in (["a"], [None], [[1]])),
        *(
            ("choices", "mc1_targets", [{"choices": ["a", "b"], "labels": labels}])
            for labels in ([1], ["1", "0"], [7, 0])
        ),
        ("choices", "mc2_targets", [None]),
    ],
)
def test_a_column_of_another_type_is_refused_with_its_row(tmp_path, task, column, values):
    columns, load = LOADERS[task]
    with pytest.raises(PromptError, match=r"a\.parquet, row 1: ") as error:
        load(parquet(tmp_path / "a.parquet", columns | {column: values}))
    assert "\n" not in str(error.value)


def test_a_parquet_file_that_would_fill_the_memory_is_refused_by_its_footer(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ROWS", 1000)
    monkeypatch.setattr(reading, "MAX_COLUMN", 2**20)
    path = parquet(tmp_path / "a.parquet", {name: pa.repeat(values[0], 1001) for name, values in GSM8K.items()})
    with pytest.raises(PromptError, match=r"has 1,001 rows and .* at most 1,000 and 1 MiB are read; give fewer rows"):
        load_task("gsm8k", path)
    pq.write_table(pa.table(GSM8K | {"question": ["a" * 2**21]}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(PromptError, match=r"columns of up to 2 MiB, .*; give fewer rows"):
        load_task("gsm8k", path)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_parquet_file_is_refused(tmp_path, kept):
    path = parquet(tmp_path / "a.parquet", GSM8K)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PromptError, match=r"a\.parquet: not a Parquet file; name one that can be read"):
        load_task("gsm8k", path)


def test_a_cell_that_the_csv_reader_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    for text in ("a\n" + "x" * 131_073 + "\n", 'a\n"' + "x\n" * 100_000):
        path.write_text(text)
        with pytest.raises(PromptError, match=r"line 2: field larger than field limit .*; a \.jsonl file has no such"):
            list(read_csv(path))
