"""Readers of data files name every fault in one line, with its place and a remedy."""

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
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
