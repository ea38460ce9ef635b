"""Labels of a trace in a file."""

from dataclasses import replace

import pytest

from jaxtrace.errors import JaxtraceError, StudyError
from jaxtrace.grading.labels import label_of, labels_for, read_labels, write_labels
from jaxtrace.grading.strings import Grade
from tests.grading.rows import answer

ROWS = [answer([f"{i}"], {"answer": "1"}, id=f"p-{i}") for i in range(3)]


def test_stored_labels_are_matched_by_prompt_and_answer(tmp_path):
    file = tmp_path / "new" / "labels.jsonl"
    labels = [label_of(row).model_copy(update={"wrong_from": 2, "wrong_to": 5}) for row in ROWS]
    write_labels(labels, file)
    assert read_labels(file) == labels
    assert labels_for(ROWS[::-1], file) == labels[::-1]
    assert [label.grade.value for label in labels_for(ROWS)] == ["incorrect", "correct", "incorrect"]
    assert [path.name for path in file.parent.iterdir()] == ["labels.jsonl"]


def test_an_answer_that_ends_in_infinite_logits_is_ungraded():
    label = label_of(replace(ROWS[1], stop="not_finite"))
    assert (label.grade, label.by) == (Grade.UNGRADED, "logits not finite")


def test_labels_of_other_answers_are_refused(tmp_path):
    file = tmp_path / "labels.jsonl"
    write_labels([label_of(row) for row in ROWS], file)
    with pytest.raises(StudyError, match="has no label of the answer to p-0; grade this trace with --out"):
        labels_for([answer(["other"], {"answer": "1"}, id="p-0")], file)


def test_a_file_that_is_not_of_labels_is_refused(tmp_path):
    file = tmp_path / "labels.jsonl"
    with pytest.raises(JaxtraceError, match=r"labels.jsonl: No such file"):
        read_labels(file)
    file.write_text(label_of(ROWS[0]).model_dump_json() + '\n{"prompt": "p", "grade": "splendid"}\n')
    with pytest.raises(StudyError, match="line 2: not a label; write the file again"):
        read_labels(file)
