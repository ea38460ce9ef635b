"""The first wrong step of an answer, on traces made by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jaxtrace.errors import StudyError
from jaxtrace.figures.theme import LIGHT
from jaxtrace.grading.labels import label_of, write_labels
from jaxtrace.studies.patterns.compute import patterns
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.patterns.wrong_steps import RIGHT_CONTROL
from tests.figures.traces import row, trace

LAYERS, HEADS = 2, 2
STEP, AFTER = "the wrong step − the rest", "from the wrong step on − before it"
SPANS = [(3, 4), (5, 5), (2, 6), (6, 9), (4, 4), (7, 8)]


def answer(i, steps, right):
    sizes = {"layers": LAYERS, "heads": HEADS, "groups": ("output", "attention")}
    about = {"id": f"p-{i}", "ids": [i] * 4, "meta": {"solution": "…", "answer": "7"}}
    return row(np.random.default_rng(i), ["w"] * steps, text=f"#### {7 if right else i + 10}", **about, **sizes)


def spiked(i, span):
    """Return a wrong answer whose entropies jump by 2 at the wrong step."""
    made = answer(i, 12, False)
    for name in ("attention_entropy", "attention_varentropy"):
        made.metrics[name][span[0] : span[1] + 1] += 2
    return made


@pytest.fixture(scope="module")
def rows():
    return [*(spiked(i, span) for i, span in enumerate(SPANS)), *(answer(20 + i, 8 + i, True) for i in range(5))]


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    labels = [label_of(one) for one in rows]
    for i, (start, end) in enumerate(SPANS):
        labels[i] = labels[i].model_copy(update={"wrong_from": start, "wrong_to": end, "wrong_by": "critic"})
    labels[5] = labels[5].model_copy(update={"wrong_from": None, "wrong_to": None, "wrong_by": "critic: nonsense"})
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    write_labels(labels, path)
    return path


@pytest.fixture(scope="module")
def result(rows, file):
    traces = {"tiny": trace(rows, layers=LAYERS, heads=HEADS)}
    return patterns(traces, PatternsConfig(by="wrong_step", labels=file, resamples=100))


def slow(one, inside):
    """Return mean attention entropy of steps inside minus the mean of the other steps after 0."""
    parts = {True: [], False: []}
    for step in range(1, one.length):
        parts[inside(step)].append(one.metrics["attention_entropy"][step].astype(np.float64).mean())
    return np.mean(parts[True]) - np.mean(parts[False])


@pytest.mark.parametrize("part", [STEP, AFTER])
def test_the_wrong_step_is_compared_with_the_other_tokens(rows, result, part):
    def inside(span):
        return lambda step: span[0] <= step <= (span[1] if part == STEP else 99)

    frame = result.tables["wrong_steps"].frame.set_index(["metric", "comparison", "control"])
    gaps = [slow(one, inside(span)) for one, span in zip(rows, SPANS[:5], strict=False)]
    line = frame.loc["attention_entropy", part, "none"]
    assert line["difference"] == pytest.approx(np.mean(gaps)) and line["n"] == 5
    assert line["g"] == pytest.approx(np.mean(gaps) / np.std(gaps, ddof=1) * (1 - 3 / (4 * 4 - 1)))
    if part == STEP:
        assert line["difference_low"] > 1 and line["auroc"] > 0.95 and line["auroc_low"] > 0.9
    expected = [np.mean([slow(one, inside(span)) for one in rows[6:] if one.length > span[0]]) for span in SPANS[:5]]
    line = frame.loc["attention_entropy", part, RIGHT_CONTROL]
    assert line["difference"] == pytest.approx(np.mean(gaps) - np.mean(expected))
    assert np.isnan(line["auroc"])


def test_a_trend_of_all_answers_is_no_sign_of_a_mistake(rows, file):
    trend = [replace(one, metrics=dict(one.metrics)) for one in rows]
    for one in trend:
        grown = np.arange(one.length, dtype=np.float32)[:, None, None] * np.ones((1, LAYERS, HEADS), np.float32)
        one.metrics["attention_entropy"] = grown
    longer = [
        replace(one, metrics={name: np.resize(v, (12, *v.shape[1:])) for name, v in one.metrics.items()})
        for one in trend
    ]
    for one in longer:
        one.metrics["attention_entropy"][:] = np.arange(12)[:, None, None]
    config = PatternsConfig(by="wrong_step", labels=file, resamples=100)
    result = patterns({"tiny": trace(longer, layers=LAYERS, heads=HEADS)}, config)
    frame = result.tables["wrong_steps"].frame.set_index(["metric", "comparison", "control"])
    assert frame.loc["attention_entropy", AFTER, "none"]["difference_low"] > 3
    assert abs(frame.loc["attention_entropy", AFTER, RIGHT_CONTROL]["difference"]) < 1e-9


def test_means_around_the_first_wrong_token(rows, result):
    frame = result.tables["around"].frame.set_index(["metric", "offset"])
    line = frame.loc["attention_entropy", 0]
    at = [
        one.metrics["attention_entropy"][span[0]].astype(np.float64).mean()
        for one, span in zip(rows, SPANS[:5], strict=False)
    ]
    assert (line["mean"], line["n"]) == (pytest.approx(np.mean(at)), 5)
    assert frame.loc["attention_entropy", -2]["n"] == 3 + 1
    assert len(result.pictures["around"].draw(LIGHT).axes) == 2
    assert "tiny: 5 answers with a wrong step after others, and 5 right ones." in result.notes
    assert "tiny: 1 answers without a wrong step (critic: nonsense)." in result.notes


def test_prompt_positions_do_not_shift_the_labels(rows, file, result):
    ahead = [
        replace(
            one,
            metrics={name: np.concatenate([values[:3], values]) for name, values in one.metrics.items()},
            pieces=("a",) * 3 + one.pieces,
            prompt_steps=3,
        )
        for one in rows
    ]
    config = PatternsConfig(by="wrong_step", labels=file, resamples=100)
    again = patterns({"tiny": trace(ahead, layers=LAYERS, heads=HEADS)}, config)
    pd.testing.assert_frame_equal(again.tables["wrong_steps"].frame, result.tables["wrong_steps"].frame)


def test_a_single_wrong_answer_is_refused(rows, file, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(file.read_text().splitlines()[0] + "\n")
    config = PatternsConfig(by="wrong_step", labels=path)
    with pytest.raises(StudyError, match="tiny: 1 answers have a wrong step after others; give labels of two or more"):
        patterns({"tiny": trace(rows[:1], layers=LAYERS, heads=HEADS)}, config)
