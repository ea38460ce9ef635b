"""The studies asked of models whose truth is known: what they are asked, and how what they say is tabled."""

import json
import shutil
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks.known_truth import _confidence, _skipped
from benchmarks.known_truth_studies import BEGINNING, OF_A_KIND, _known, beginnings
from jaxtrace import Prompt, load
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.grading.strings import Grade
from jaxtrace.lab.settings import DEMO_WORLD


def test_beginnings_are_of_three_kinds_and_equally_long(tmp_path):
    model = shutil.copytree(demo_path(), tmp_path / "model")
    (model / "world.json").write_text(DEMO_WORLD.model_dump_json(), encoding="utf-8")
    lines = [json.loads(line) for line in beginnings(model)]
    assert Counter(line["kind"] for line in lines) == dict.fromkeys(("fact", "sum", "story"), OF_A_KIND)
    assert len({line["prompt"] for line in lines}) == len({line["id"] for line in lines}) == 3 * OF_A_KIND
    encoded = load(str(model)).encode([Prompt(text=line["prompt"]) for line in lines], chat=False)
    assert {len(tokens) for _, tokens in encoded} == {BEGINNING + 1}  # with that which begins a text
    by_kind = {kind: [line["prompt"] for line in lines if line["kind"] == kind] for kind in ("fact", "sum", "story")}
    sums = {kind: sum("+" in text or "make" in text for text in texts) for kind, texts in by_kind.items()}
    assert sums == {"fact": 0, "sum": OF_A_KIND, "story": 0}


@pytest.mark.parametrize(("stated", "grade"), [(0, Grade.INCORRECT), (4, Grade.UNGRADED), (16, Grade.CORRECT)])
def test_what_is_known_is_labelled(stated, grade):
    assert _known(SimpleNamespace(prompt=Prompt(text="?", id="a", meta={"stated": stated}), text="x")).grade is grade


def estimate(name, value):
    return {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}


def test_a_line_of_confidence():
    rows = [
        {"score": score, "n": 9, "groups": 3, **estimate("auroc", auroc), **estimate("auroc_gain", auroc - 0.5)}
        for score, auroc in {"mlp": 0.8, "mean_entropy": 0.5, "logistic": 0.7, "msp": 0.6}.items()
    ]
    shown = [f"{x:.3f} [{x - 0.1:.3f}, {x + 0.1:.3f}]" for x in (0.5, 0.7, 0.2, 0.8, 0.3, 0.6)]
    assert list(_confidence(pd.DataFrame(rows))) == ["9", "3", *shown]


def test_lines_of_layers_left_out():
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
    found = list(_skipped("m", {"accuracy": pd.DataFrame(accuracy), "comparisons": pd.DataFrame(comparisons)}))
    whole = "1.00 [0.90, 1.10]"
    assert found == [
        ("m", whole, "1 expansion", "2", "0.40 [0.30, 0.50]", "-0.60 [-0.70, -0.50]", "-0.20 [-0.30, -0.10]"),
        ("m", whole, "1 random", "–", "0.60 [0.50, 0.70]", "-0.40 [-0.50, -0.30]", "–"),
    ]
