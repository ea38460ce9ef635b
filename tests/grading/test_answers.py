"""Grades of real-looking completions: each line of answers.jsonl is one, with the grade that a person would give."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jaxtrace.grading.labels import label_of
from tests.grading.rows import answer

CASES = [json.loads(line) for line in Path(__file__).with_name("answers.jsonl").read_text("utf-8").splitlines()]
META = {
    "gsm8k": {"solution": "…"},
    "simpleqa": {"topic": "Geography"},
    "mmlu": {"choices": ["w", "x", "y", "z"]},
    "truthfulqa": {"correct_answers": ["No", "No, it does not"], "incorrect_answers": ["Yes"]},
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['task']} {case['answer']}: {case['text'][:40]}")
def test_a_completion_has_the_grade_that_a_person_would_give(case):
    meta = META[case["task"]] | ({} if case["task"] == "truthfulqa" else {"answer": case["answer"]})
    row = replace(answer([case["text"]], meta), stop=case.get("stop", "stop_token"))
    assert label_of(row).grade.value == case["grade"]
