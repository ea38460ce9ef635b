"""The benchmark of real models: sizes, resumed stages, classes that are too small, and its tables."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import real_models
from benchmarks.real_models import few_of_a_class, filled, outcome
from benchmarks.real_models_stages import MC1_LABELS, Plan, Shown, Stage
from jaxtrace.cli import app
from jaxtrace.cli.options import Command, Group

DATA = Path("data")
PLANS = {
    "committed": Plan("demo", 4, None, None, False),
    "full": Plan("demo", 4, DATA, None, True),
    "try": Plan("demo", 4, DATA, 6, False, 12),
}
STAGES = {name: [*plan.stages()] for name, plan in PLANS.items()}


@pytest.mark.parametrize("size", STAGES)
def test_every_stage_is_a_valid_command_on_results_of_earlier_stages(size):
    made = set()
    for stage in STAGES[size]:
        words, command = [*stage.words], app.APP
        while isinstance(command, Group) and words[0] != MC1_LABELS:
            command = command.members()[words.pop(0)]()
        if isinstance(command, Command):
            _, unknown = command.parser().parse_known_intermixed_args([*words, "--out", stage.name])
            assert unknown == [], stage.name
        named = {word.split("/")[0] for word in words} & {other.name for other in STAGES[size]}
        assert (stage.words[0] == "trace" or named <= made) and (stage.labels is None or stage.labels in made), (
            stage.name
        )
        made.add(stage.name)
    assert len(made) == len(STAGES[size])


def test_sizes_are_at_most_200_prompts_unless_full():
    texts = {name: [" ".join(stage.words) for stage in stages] for name, stages in STAGES.items()}
    samples = [int(number) for text in texts["committed"] for number in re.findall(r"--sample (\d+)", text)]
    assert samples and max(samples) <= 200
    assert not any("--sample " in text for text in texts["full"])
    assert all("--stratify subject" not in text for text in texts["try"])
    assert {int(n) for text in texts["try"] for n in re.findall(r"--max-new-tokens (\d+)", text)} == {8, 12}


@pytest.fixture
def ran(monkeypatch):
    """Names of the stages that ran, and whether they were resumed; none computes anything."""
    calls = []

    def execute(stage, workdir, resume):
        calls.append((stage.name, resume))
        (workdir / stage.name).touch()
        return "failed: no disk" if len(calls) == 1 else "done"

    monkeypatch.setattr(real_models, "_executed", execute)
    return calls


def test_a_stage_is_resumed_until_it_is_done_and_begins_anew_with_other_words(ran, tmp_path):
    stage = Stage("one", ("trace", "demo"))
    assert [outcome(stage, tmp_path, 10)[0] for _ in range(3)] == ["failed: no disk", "done", "done"]
    assert ran == [("one", False), ("one", True)]
    (tmp_path / "one").unlink()
    outcome(stage, tmp_path, 10)
    assert ran[2:] == [("one", True)]
    outcome(Stage("one", ("trace", "other")), tmp_path, 10)
    assert ran[3:] == [("one", False)]


def test_a_stage_begins_anew_after_one_that_it_reads(ran, tmp_path):
    stages = [
        Stage("one", ("trace", "demo")),
        Stage("two", ("study", "one/table", "long" * 100)),
        Stage("three", ("trace", "demo")),
    ]
    ran.append(None)
    for changed in ("demo", "other"):
        stages[0] = Stage("one", ("trace", changed))
        for stage in stages:
            outcome(stage, tmp_path, 10)
    assert ran[1:] == [(name, False) for name in ("one", "two", "three", "one", "two")]


def test_a_class_with_few_answers_is_not_compared(tmp_path):
    file = tmp_path / "labels"
    file.write_text("".join(json.dumps({"grade": grade}) + "\n" for grade in ["correct"] * 9 + ["incorrect"] * 40))
    assert few_of_a_class(file, 10) == "9 right and 40 wrong answers; each class needs 10"
    assert few_of_a_class(file, 9) == ""
    stage = Stage("compared", ("study", "patterns"), labels="labels")
    assert outcome(stage, tmp_path, 10) == ("skipped: 9 right and 40 wrong answers; each class needs 10", 0.0)


def test_tables_show_estimates_with_intervals_and_break_at_no_text():
    frame = pd.DataFrame(
        {"of": ["a|b\n", "c"], "x": [0.12345, 1], "x_low": [0.1, 0.5], "x_high": [0.2, 2], "n": [7, 8]}
    )
    table = filled(Shown("f", "T", ("of", "x", "n"), keep=("of", ("a|b\n",))), frame, "setting", ())
    with pytest.raises(KeyError, match="absent"):
        filled(Shown("f", "T", ("of", "absent")), frame, "setting", ())
    assert table.columns == ["of", "x", "n"] and table.rows == [["a\\|b", "0.123 [0.1, 0.2]", "7"]]
