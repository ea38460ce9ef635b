"""Labels from rules, from a user's files, and from a critic."""

import dataclasses
import json

import numpy as np
import pytest

from jaxtrace.errors import PromptError, StudyError
from jaxtrace.grading.labels import label_of, write_labels
from jaxtrace.grading.strings import Grade
from jaxtrace.prompts import Prompt
from jaxtrace.studies.confidence.features import feature_tables
from jaxtrace.studies.confidence.labels import known_labels
from tests.figures.traces import trace
from tests.studies.confidence.traces import answers


@pytest.fixture
def answered(rng):
    return {"m": answers(rng, 3, steps=4)}


def test_labels_by_prompt_come_from_csv_or_jsonl(answered, tmp_path):
    tables = feature_tables(answered)
    csv, jsonl = tmp_path / "own.csv", tmp_path / "own.jsonl"
    csv.write_text("label,prompt\ntrue,q0\nincorrect,q2\n1,elsewhere\n", encoding="utf-8")
    jsonl.write_text('{"prompt": "q0", "label": true}\n{"prompt": "q2", "label": 0}\n', encoding="utf-8")
    for file in (csv, jsonl):
        known = known_labels(tables, file)
        np.testing.assert_array_equal(known.answers, [1, np.nan, 0])
        np.testing.assert_array_equal(known.tokens, np.repeat([1, np.nan, 0], 4))


def test_without_a_file_rules_on_strings_label(answered):
    rows = [
        dataclasses.replace(row, prompt=Prompt(text="?", id=row.prompt.id, meta={"answer": "t0 t1"}))
        for row in answered["m"].rows
    ]
    rows[1] = dataclasses.replace(rows[1], text="something else")
    rows[2] = dataclasses.replace(rows[2], text="")
    graded_traces = {"m": trace(rows, layers=4, heads=2)}
    np.testing.assert_array_equal(known_labels(feature_tables(graded_traces), None).answers, [1, 0, np.nan])


def test_a_critics_steps_label_the_tokens(answered, tmp_path):
    rows = [
        dataclasses.replace(row, prompt=dataclasses.replace(row.prompt, meta={"answer": "no"}))
        for row in answered["m"].rows
    ]
    labels = [label_of(row) for row in rows]
    labels[1] = labels[1].model_copy(update={"wrong_from": 1, "wrong_to": 1, "wrong_by": "critic"})
    file = tmp_path / "graded.jsonl"
    write_labels(labels, file)
    for ahead, tokens in ((0, [1, 0, np.nan, np.nan]), (1, [1, 0, np.nan])):
        rows[1] = dataclasses.replace(rows[1], prompt_steps=ahead)
        graded_traces = {"m": trace(rows, layers=4, heads=2)}
        known = known_labels(feature_tables(graded_traces), file)
        np.testing.assert_array_equal(known.answers, [0, 0, 0])
        np.testing.assert_array_equal(known.tokens, [0, 0, 0, 0, *tokens, 0, 0, 0, 0])


def test_a_label_by_prompt_allows_one_answer_only(answered, rng, tmp_path):
    csv, graded = tmp_path / "own.csv", tmp_path / "graded.jsonl"
    csv.write_text("prompt,label\nq0,true\nq1,false\n", encoding="utf-8")
    same = answered | {"same": answers(rng, 3, steps=4)}
    np.testing.assert_array_equal(known_labels(feature_tables(same), csv).answers, [1, 0, np.nan] * 2)
    longer = answered | {"longer": answers(rng, 3, steps=5)}
    with pytest.raises(StudyError, match=r"own.csv: q0 has different answers in the traces"):
        known_labels(feature_tables(longer), csv)
    rows = [row for trace in longer.values() for row in trace.rows]
    labels = [
        label_of(row).model_copy(update={"grade": Grade(("incorrect", "correct")[i % 2])}) for i, row in enumerate(rows)
    ]
    write_labels(labels, graded)
    np.testing.assert_array_equal(known_labels(feature_tables(longer), graded).answers, [0, 1, 0, 1, 0, 1])
    csv.write_text("prompt,label\nq0,true\nq1,false\nq0,false\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"own.csv, line 4: a second label of q0; keep one"):
        known_labels(feature_tables(answered), csv)


def test_invalid_labels_are_refused(answered, tmp_path):
    tables, file = feature_tables(answered), tmp_path / "own.jsonl"
    for content, message in (
        ({"prompt": "q0", "label": "maybe"}, "own.jsonl, line 1: not a label; give a prompt's id as prompt"),
        ({"label": True}, "line 1: not a label; give a prompt's id"),
        ("q0", "line 1: not an object"),
        ({"prompt": "other", "label": True}, "no label of the traces' prompts; use their ids, such as q0, q1, q2"),
    ):
        file.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(StudyError, match=message):
            known_labels(tables, file)
    with pytest.raises(PromptError, match="name a file that can be read"):
        known_labels(tables, tmp_path / "missing.csv")
    for first in ({"prompt": "q0", "label": True}, label_of(answered["m"].rows[0]).model_dump(mode="json")):
        file.write_text(f'{json.dumps(first)}\n"q1"\n', encoding="utf-8")
        with pytest.raises(StudyError, match=r"own.jsonl, line 2: not an object"):
            known_labels(tables, file)
