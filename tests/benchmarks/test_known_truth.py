"""Studies of models of a world with known facts: their prompts, labels and table rows."""

import json
import shutil
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks.known_truth import _ablations, _confidence
from benchmarks.known_truth_studies import BEGINNING, PER_KIND, beginnings, known_label
from jaxtrace import Prompt, load
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.grading.strings import Grade
from jaxtrace.lab.settings import DEMO_WORLD


def test_beginnings_have_three_kinds_and_one_length(tmp_path):
    model = shutil.copytree(demo_path(), tmp_path / "model")
    (model / "world.json").write_text(DEMO_WORLD.model_dump_json(), encoding="utf-8")
    lines = [json.loads(line) for line in beginnings(model)]
    assert Counter(line["kind"] for line in lines) == dict.fromkeys(("fact", "sum", "story"), PER_KIND)
    assert len({line["prompt"] for line in lines}) == len({line["id"] for line in lines}) == 3 * PER_KIND
    encoded = load(str(model)).encode([Prompt(text=line["prompt"]) for line in lines], chat=False)
    assert {len(tokens) for _, tokens in encoded} == {BEGINNING + 1}  # with the token that begins a text
    by_kind = {kind: [line["prompt"] for line in lines if line["kind"] == kind] for kind in ("fact", "sum", "story")}
    sums = {kind: sum("+" in text or "make" in text for text in texts) for kind, texts in by_kind.items()}
    assert sums == {"fact": 0, "sum": PER_KIND, "story": 0}


@pytest.mark.parametrize(("stated", "grade"), [(0, Grade.INCORRECT), (4, Grade.UNGRADED), (16, Grade.CORRECT)])
def test_labels_follow_the_number_of_statements(stated, grade):
    assert (
        known_label(SimpleNamespace(prompt=Prompt(text="?", id="a", meta={"stated": stated}), text="x")).grade is grade
    )


def estimate(name, value):
    return {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}


def test_confidence_row_shows_each_score():
    rows = [
        {"score": score, "n": 9, "groups": 3, **estimate("auroc", auroc), **estimate("auroc_gain", auroc - 0.5)}
        for score, auroc in {
            "mlp": 0.8,
            "mean_token_entropy": 0.5,
            "logistic": 0.7,
            "maximum_sequence_probability": 0.6,
        }.items()
    ]
    shown = [f"{x:.3f} [{x - 0.1:.3f}, {x + 0.1:.3f}]" for x in (0.5, 0.7, 0.2, 0.8, 0.3, 0.6)]
    assert list(_confidence(pd.DataFrame(rows))) == ["9", "3", *shown]


def test_ablation_rows_compare_with_the_whole_model_and_random_layers():
    ways = [("none", 0, None, None, 1.0), ("expansion", 1, True, "2", 0.4), ("random", 1, True, None, 0.6)]
    ways.append(("expansion", 1, False, "3", 0.7))
    accuracy = [
        {"kind": kind, "k": k, "edges": edges, "layers": layers, **estimate("accuracy", value)}
        for kind, k, edges, layers, value in ways
    ]
    over = [("expansion", "none", -0.6), ("expansion", "random", -0.2), ("random", "none", -0.4)]
    comparisons = [
        {"kind": kind, "k": 1, "edges": True, "against": against, **estimate("difference", value)}
        for kind, against, value in over
    ]
    rows = list(_ablations("m", {"accuracy": pd.DataFrame(accuracy), "comparisons": pd.DataFrame(comparisons)}))
    whole = "1.00 [0.90, 1.10]"
    assert rows == [
        ("m", whole, "1 expansion", "2", "0.40 [0.30, 0.50]", "-0.60 [-0.70, -0.50]", "-0.20 [-0.30, -0.10]"),
        ("m", whole, "1 random", "–", "0.60 [0.50, 0.70]", "-0.40 [-0.50, -0.30]", "–"),
    ]
