"""Attention entropy by condition, on traces made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from jaxtrace.errors import StudyError
from jaxtrace.figures.html import png
from jaxtrace.figures.theme import LIGHT
from jaxtrace.grading import Grade
from jaxtrace.grading.labels import label_of, write_labels
from jaxtrace.statistics.intervals import mean_intervals
from jaxtrace.studies.patterns.compute import patterns
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.patterns.trajectories import ATTENTION, trajectories
from tests.figures.traces import metrics, row, trace

LAYERS, HEADS = 2, 3
CREATIVE = "creative, $x_$"


def answer(i, meta, steps, prompt=4, shift=0.0, groups=("output", "attention")):
    """Return an answer to a prompt with unique tokens; all its attention entropies are shifted."""
    rng = np.random.default_rng(i)
    about = {"id": f"p-{i}", "ids": [i] * prompt, "meta": meta}
    made = row(rng, [f" w{j}" for j in range(steps)], layers=LAYERS, heads=HEADS, groups=groups, **about)
    if shift:
        made.metrics["attention_entropy"] += np.float32(shift)
    return made


def of_growth(i, condition, steps, prompt):
    """Return an answer whose attention entropies are half of ln(keys)."""
    made = answer(i, {"condition": condition}, steps, prompt)
    grown = 0.5 * np.log(prompt + np.arange(steps))[:, None, None] * np.ones((steps, LAYERS, HEADS))
    made.metrics["attention_entropy"] = grown.astype(np.float32)
    made.metrics["attention_entropy_normalized"] = np.full_like(made.metrics["attention_entropy"], 0.5)
    return made


def compared(rows, table="comparisons", prompt_positions=False, **settings):
    of = trace(rows, layers=LAYERS, heads=HEADS, prompt_positions=prompt_positions)
    result = patterns({"tiny": of}, PatternsConfig(**{"resamples": 100, **settings}))
    return result, result.tables[table].frame.set_index(["metric", "control"])


@pytest.fixture(scope="module")
def two():
    """Return factual answers, and creative ones with more attention entropy; one of them is a single token."""
    factual = [answer(i, {"condition": "factual"}, 5 + i % 4) for i in range(8)]
    creative = [answer(10 + i, {"condition": CREATIVE}, 6 + i % 3, shift=0.5) for i in range(7)]
    return [*factual, *creative, answer(30, {"condition": CREATIVE}, 1), answer(31, {"condition": None}, 5)]


@pytest.fixture(scope="module")
def outcome(two):
    return compared(two, conditions=("factual", CREATIVE))


def slow_mean(one, name, start, stop):
    """Return the mean of a metric over layers, heads and steps, one number after the other."""
    numbers = [x for step in one.metrics[name][start:stop] for x in np.ravel(step)]
    return float(np.mean(np.array(numbers, np.float64)))


@pytest.mark.parametrize("name", [*ATTENTION, "entropy", "varentropy"])
def test_differences_are_of_prompt_means(two, outcome, name):
    _, frame = outcome
    for control, stop in (("none", None), ("matched steps", 1 + 5)):
        first, second = ([slow_mean(one, name, 1, stop) for one in group] for group in (two[:8], two[8:15]))
        line = frame.loc[name, control]
        assert line["difference"] == pytest.approx(np.mean(first) - np.mean(second), abs=1e-9)
        pooled = np.sqrt((7 * np.var(first, ddof=1) + 6 * np.var(second, ddof=1)) / 13)
        assert line["g"] == pytest.approx(line["difference"] / pooled * (1 - 3 / (4 * 13 - 1)))
        assert line["auroc"] == np.mean([[a > b for b in second] for a in first])
        assert (line["n_first"], line["n_second"]) == (8, 7)
        assert line["comparison"] == f"factual − {CREATIVE}"


def test_a_real_difference_is_found(outcome):
    _, frame = outcome
    line = frame.loc["attention_entropy", "none"]
    assert line["difference_high"] < -0.3 and line["auroc"] < 0.1 and line["p"] < 0.02
    assert np.allclose(np.sort(frame["p_adjusted"]), np.sort(stats.false_discovery_control(frame["p"])))
    assert (frame["p_adjusted"] >= frame["p"]).all()


def test_compared_answers_are_counted(outcome):
    result, _ = outcome
    table = result.tables["conditions"].frame.set_index("condition")
    assert table["answers"].to_dict() == {"factual": 8, CREATIVE: 7}
    assert table.loc["factual", "mean_steps"] == np.mean([5 + i % 4 for i in range(8)])
    assert table["mean_prompt_tokens"].to_numpy() == pytest.approx([4, 4])
    assert result.notes[:2] == (
        "tiny: 2 of 17 answers are not compared: without a condition, or one token.",
        "tiny: steps 1 to 5 count as matched.",
    )


def test_growth_with_length_alone_does_not_survive_the_controls():
    rows = [of_growth(i, "a short", 6 + i % 5, 4 + i % 3) for i in range(8)]
    rows += [of_growth(10 + i, "long", 20 + i % 5, 4 + i % 3) for i in range(8)]
    _, frame = compared(rows)
    assert frame.loc[("attention_entropy", "none"), "difference_high"] < -0.1
    assert frame.loc[("ln_keys", "none"), "difference_high"] < -0.2
    assert abs(frame.loc[("attention_entropy", "ln(keys) removed"), "difference"]) < 1e-6
    assert abs(frame.loc[("attention_entropy_normalized", "none"), "difference"]) < 1e-6
    assert abs(frame.loc[("attention_entropy", "matched steps"), "difference"]) < 0.05
    assert frame.loc[("attention_entropy", "matched steps"), "p"] > 0.05


def test_means_by_step_layer_and_head(two, outcome):
    result, _ = outcome
    steps = result.tables["steps"].frame.set_index(["condition", "metric", "step"]).sort_index()
    alive = [one for one in two[8:15] if one.length > 6]
    at = [one.metrics["attention_varentropy"][6].astype(np.float64).mean() for one in alive]
    line = steps.loc[CREATIVE, "attention_varentropy", 6]
    assert (line["mean"], line["n"]) == (pytest.approx(np.mean(at)), len(at))
    low, high = stats.t.interval(0.95, len(at) - 1, np.mean(at), stats.sem(at))
    assert (line["mean_low"], line["mean_high"]) == pytest.approx((low, high))
    heads = result.tables["heads"].frame.set_index(["condition", "layer", "head"]).sort_index()
    of_heads = [
        np.mean([one.metrics["attention_entropy"][1:, 1, head].astype(np.float64).mean() for one in two[:8]])
        for head in range(HEADS)
    ]
    assert heads.loc["factual", 2]["attention_entropy"].to_numpy() == pytest.approx(of_heads)
    line = (
        result.tables["layers"].frame.set_index(["condition", "metric", "layer"]).loc["factual", "attention_entropy", 2]
    )
    assert (line["mean"], line["over_heads"]) == (pytest.approx(np.mean(of_heads)), pytest.approx(np.std(of_heads)))
    assert line["n"] == 8


def test_pictures_have_a_panel_per_metric_and_a_line_per_condition(outcome):
    result, _ = outcome
    drawn = {name: picture.draw(LIGHT) for name, picture in result.pictures.items()}
    assert all(png(figure) for figure in drawn.values())  # dollar signs in names are no formulas
    assert {name: len(figure.axes) for name, figure in drawn.items()} == {"steps": 3, "layers": 2, "heads": 2}
    assert [text.get_text() for text in drawn["steps"].axes[0].get_legend().get_texts()] == ["factual", CREATIVE]
    assert len(drawn["heads"].axes[0].lines) == HEADS


def test_step_zero_has_the_variance_over_query_rows():
    rows = []
    for i in range(8):
        rng, prompt = np.random.default_rng(i), 1 if i == 5 else 4 + i % 2
        made = answer(i, {"condition": "ab"[i // 4]}, prompt - 1 + 5, prompt)
        positions = metrics(rng, prompt + 4, LAYERS, HEADS, ("output", "attention"))
        rows.append(replace(made, metrics=positions, prompt_steps=prompt - 1))
    _, frame = compared(rows, "step_zero", prompt_positions=True)
    zero = [slow_mean(one, "attention_entropy", one.prompt_steps, one.prompt_steps + 1) for one in rows]
    assert frame.loc[("attention_entropy", "none"), "difference"] == pytest.approx(
        np.mean(zero[:4]) - np.mean(zero[4:])
    )
    over = []
    for one in rows:
        heads = [
            np.var(
                [one.metrics["attention_entropy"][q, layer, head] for q in range(len(one.prompt_tokens))], dtype=float
            )
            for layer in range(LAYERS)
            for head in range(HEADS)
        ]
        over.append(np.mean(heads))
    assert frame.loc[("row_entropy_var", "none"), "difference"] == pytest.approx(np.mean(over[:4]) - np.mean(over[4:]))
    (first, *_) = trajectories("tiny", trace(rows, layers=LAYERS, heads=HEADS), ["all"] * 8)
    assert first.steps == 5
    assert np.exp(first.ln_keys) == pytest.approx(np.arange(4, 9))


def test_samples_of_one_prompt_are_one_unit():
    rows = [answer(i // 3, {"condition": "ab"[i // 12]}, 5, shift=i // 3, groups=("attention",)) for i in range(24)]
    result, frame = compared(rows, resamples=400)
    assert result.tables["conditions"].frame["prompts"].tolist() == [4, 4]
    line = frame.loc["attention_entropy", "none"]
    assert line["p"] > 0.01  # about 2/70: 8 prompts split into 4 and 4 in 70 ways, 24 answers in far more
    assert (line["n_first"], line["n_second"]) == (12, 12)


def test_grades_are_conditions(tmp_path):
    said = [" seven", " I do not know", " eight", " no idea", " 7 of them"]
    rows = [replace(answer(i, {"answer": "seven"}, 4), text=said[i % 5]) for i in range(20)]
    rows.append(answer(40, {}, 4))
    result, _ = compared(rows, by="grade")
    counts = {"correct or not attempted": 12, "incorrect": 8}
    assert result.tables["conditions"].frame.set_index("condition")["answers"].to_dict() == counts
    file = tmp_path / "labels.jsonl"
    judged = [
        label_of(one).model_copy(update={"grade": Grade.CORRECT if i < 9 else Grade.INCORRECT})
        for i, one in enumerate(rows)
    ]
    write_labels(judged, file)
    result, _ = compared(rows, by="correctness", labels=file)
    counts = {"correct": 9, "incorrect": 12}
    assert result.tables["conditions"].frame.set_index("condition")["answers"].to_dict() == counts


def test_unusable_conditions_are_refused(two):
    def refused(rows, message, mode="generate", **settings):
        with pytest.raises(StudyError, match=message):
            patterns({"tiny": trace(rows, mode, layers=LAYERS, heads=HEADS)}, PatternsConfig(**settings))

    refused(
        [answer(0, {"condition": "a"}, 5, groups=("output",))], "trace it again with --probes that include attention"
    )
    refused(two, "is a trace of given text", mode="score")
    refused(two[:8], "two conditions are needed, and it has only 'factual'")
    refused(
        two,
        "no answer is of condition 'poetic'; choose from: creative, \\$x_\\$, factual",
        conditions=("poetic", "factual"),
    )
    refused([*two[:8], two[15]], "0 answers of 'creative, .*' continue after step 0; give at least two of each")
    refused(two, "two conditions are needed, and it has only 'factual'", conditions=("factual", "factual"))
    refused(two, "no prompt and no run has 'mood'", by="mood")
    refused(two, "two conditions are needed, and it has none", by="grade")
    refused(two, "needs wrong steps; give --labels FILE", by="wrong_step")


def test_column_means_have_t_intervals():
    values = np.array([[1.0, 2.0, np.nan, np.nan], [2.0, 5.0, 3.0, np.nan], [4.0, np.nan, np.nan, np.nan]])
    found = mean_intervals(values)
    assert found["n"].tolist() == [3, 2, 1, 0]
    assert found["mean"].tolist()[:3] == [pytest.approx(7 / 3), 3.5, 3.0] and np.isnan(found["mean"][3])
    for column, n in ((0, 3), (1, 2)):
        low, high = stats.t.interval(0.95, n - 1, np.mean(values[:n, column]), stats.sem(values[:n, column]))
        assert (found["mean_low"][column], found["mean_high"][column]) == pytest.approx((low, high))
    assert found["mean_low"].isna().tolist() == [False, False, True, True]


def of_topics(topics, conditions=("creative", "factual"), samples=1, seed=0):
    """Return answers whose level is the topic's; the first condition's is 0.2 nats higher."""
    rng, rows = np.random.default_rng(seed), []
    for topic in range(topics):
        level = float(rng.normal(0, 2))
        for i, condition in enumerate(conditions):
            for sample in range(samples):
                meta = {"condition": condition, "topic": f"t{topic}"}
                made = answer(10 * topic + i, meta, 6, shift=level + (0.2 if i == 0 else 0.0))
                made.metrics["attention_entropy"] += np.float32(rng.normal(0, 0.05) + 0 * sample)
                rows.append(made)
    return rows


def test_conditions_of_a_topic_are_compared_within_it():
    rows = of_topics(14)
    result, frame = compared(rows)
    line = frame.loc["attention_entropy", "none"]
    first, second = (np.array([slow_mean(one, "attention_entropy", 1, None) for one in rows[i::2]]) for i in (0, 1))
    gaps = first - second
    assert line["paired"] == "topic" and (line["n_first"], line["n_second"]) == (14, 14)
    assert line["difference"] == pytest.approx(gaps.mean(), abs=1e-6)
    assert line["g"] == pytest.approx(gaps.mean() / gaps.std(ddof=1) * (1 - 3 / (4 * 13 - 1)), rel=1e-4)
    assert line["difference_low"] > 0 and line["p"] < 0.05 and not line["difference_few"]
    assert "compared within pairs, by topic; 0 of 14 lack an answer" in " ".join(result.notes)
    unpaired = compared([answer_of(one, topic=None) for one in rows])[1].loc["attention_entropy", "none"]
    assert unpaired["paired"] == "no" and unpaired["p"] > 0.3  # topics differ by ten times as much


def answer_of(one, **meta):
    kept = {key: value for key, value in {**one.prompt.meta, **meta}.items() if value is not None}
    return replace(one, prompt=replace(one.prompt, meta=kept))


def test_samples_of_a_pair_are_averaged_and_lone_answers_are_excluded():
    rows = of_topics(12, samples=3)
    result, frame = compared([*rows[:-3], answer(999, {"condition": "factual", "topic": "alone"}, 6)])
    line = frame.loc["attention_entropy", "none"]
    assert (line["paired"], line["n_first"], line["n_second"]) == ("topic", 11, 11)
    assert "2 of 13 lack an answer of some condition" in " ".join(result.notes)


def test_the_same_prompts_under_two_settings_are_pairs():
    rows = [answer(i, {"condition": name}, 6, shift=i / 4) for i in range(12) for name in ("hot", "cold")]
    assert set(compared(rows)[1]["paired"]) == {"prompt"}


def test_grades_and_topics_that_are_not_balanced_are_no_pairs():
    more = [answer(500 + i, {"condition": "factual", "topic": f"t{i % 3}"}, 6) for i in range(4)]
    rows = of_topics(3) + more
    assert set(compared(rows)[1]["paired"]) == {"no"}


def test_the_residual_of_ln_keys_leads(outcome):
    result, _ = outcome
    assert result.tables["comparisons"].frame["control"].iloc[0] == "ln(keys) removed"
    steps = result.tables["steps"].frame
    assert steps["metric"].iloc[0] == "attention_entropy_given_ln_keys"
    residual = steps[(steps["metric"] == "attention_entropy_given_ln_keys") & (steps["step"] > 0)]
    assert (residual["mean"] * residual["n"]).sum() == pytest.approx(0, abs=1e-6)
    assert any("no clean control" in note for note in result.notes)
