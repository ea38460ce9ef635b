"""Whole runs: the arithmetic of overlapping activities, and both sides on three questions."""

import pytest

from benchmarks import end_to_end
from benchmarks.end_to_end_spans import exclusive
from jaxtrace.checkpoints.embedded import demo_path


def test_overlapping_time_belongs_to_the_first_activity_in_the_order():
    spans = [("start-up", 0.0, 3.0), ("compiling", 1.0, 2.0), ("decode", 4.0, 8.0), ("draining", 7.0, 9.0)]
    spans += [("decode", 4.5, 5.0), ("compiling", 1.5, 2.0)]  # one within another
    seconds = exclusive(spans, 0.0, 10.0, ["compiling", "decode", "draining", "start-up"])
    assert seconds == {"compiling": 1.0, "decode": 4.0, "draining": 1.0, "start-up": 2.0, "rest": 2.0}


def test_time_after_the_end_does_not_count():
    assert exclusive([("decode", 1.0, 5.0)], 0.0, 2.0, ["decode"]) == {"decode": 1.0, "rest": 1.0}


@pytest.mark.nightly
def test_both_sides_give_the_same_numbers(shared_data, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    out, data = tmp_path / "table.md", shared_data / "truthfulqa" / "TruthfulQA.csv"
    words = ["--model", str(demo_path()), "--data", str(data), "--questions", "3", "--new", "4", "--batch", "2"]
    monkeypatch.setattr("sys.argv", ["end_to_end", *words, "--out", str(out)])
    end_to_end.main()
    lines = out.read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    ours = ["jaxtrace, empty compile cache", "jaxtrace, warm compile cache"]
    assert [row[0] for row in table[2:]] == [*ours, "transformers"]
    for row in table[2:]:
        seconds = [float(cell) for cell in row[3:-2] if cell != "–"]
        assert sum(seconds) == pytest.approx(float(row[1]), abs=0.2)
    assert any("of 3 answers have the same tokens" in line for line in lines)
