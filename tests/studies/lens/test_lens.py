"""The study of profiles, on traces with classes known by construction."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from jaxtrace.errors import StudyError
from jaxtrace.prompts import Prompt
from jaxtrace.studies._shared.labels import model_of, row_groups, row_labels, run_facts
from jaxtrace.studies._shared.page import write_study
from jaxtrace.studies.lens.compute import lens
from jaxtrace.studies.lens.settings import LensConfig
from jaxtrace.traces import open_trace
from jaxtrace.traces.writer import TraceWriter
from tests.commands import run_command
from tests.figures.traces import row, trace

SHAPES = {"up": 1.0, "down": -1.0, "flat": 0.0}


def made(rng, kind, number, layers=6, slope=None, **meta):
    """Return an answer whose lens entropy rises, falls or stays level through the layers."""
    ids = np.arange(5 + number % 7) + 100 * (number + 20 * list(SHAPES).index(kind))
    one = row(rng, ["x"] * 8, meta={"kind": kind, **meta}, prompt=f"{kind} {number}", ids=ids, layers=layers)
    tilt = (SHAPES[kind] if slope is None else slope) * np.linspace(-1, 1, layers)
    one.metrics["lens_entropy"] = (4 + tilt + rng.normal(0, 0.5, (8, layers))).astype(np.float32)
    return one


@pytest.fixture(scope="module")
def kinds():
    rng = np.random.default_rng(0)
    return {"tiny": trace([made(rng, kind, i) for kind in SHAPES for i in range(20)])}


@pytest.fixture(scope="module")
def found(kinds):
    return lens(kinds, LensConfig(metric=("lens_entropy", "lens_kl"), steps=6))


def test_the_area_is_tested_against_one_half(found):
    table = found.tables["auc"].frame
    excluded = (table["auc_low"] > 0.5) | (table["auc_high"] < 0.5)
    assert ((table["p_half"] < 0.05) == excluded).all() and 0 < excluded.sum() < len(table)
    assert "p_half" not in found.tables["accuracy"].frame
    line = table.set_index(["metric", "protocol", "features", "k"]).loc["lens_entropy", "grouped", "profile", 11]
    (note,) = (note for note in found.notes if note.startswith("lens_entropy: AUC of profiles against 0.5 (grouped"))
    assert f"k = 11: {line['auc']:.3f} [{line['auc_low']:.3f}, {line['auc_high']:.3f}]" in note
    assert f"one random draw of guesses, whose AUC is {line['guesses']:.3f}" in note


def test_two_folds_of_equal_scores_prove_nothing(rng):
    rows = [made(rng, kind, i, slope=9 * SHAPES[kind]) for kind in ("up", "down") for i in range(12)]
    table = lens({"tiny": trace(rows)}, LensConfig(folds=2, neighbours=(1,))).tables["auc"].frame
    line = table[table["features"] == "profile"].iloc[0]
    assert (line["auc"], line["p_half"]) == (1, 0.5)
    assert (line["auc_low"], line["auc_high"]) == (0.5, 1)


def test_kinds_are_told_apart_by_a_metric_that_differs_and_by_no_other(found):
    table = found.tables["auc"].frame.set_index(["metric", "protocol", "features", "k"])
    for protocol in ("grouped", "published"):
        for k in (3, 5, 11, 29):
            line = table.loc["lens_entropy", protocol, "profile", k]
            assert line["auc"] > 0.95 and line["gain_low"] > 0.2 and line["p"] < 1e-3 > line["p_plain"]
            assert line["auc_low"] <= line["auc"] <= line["auc_high"]
            assert (line["n"], line["groups"], line["folds"]) == (60, 60, 10)
            assert abs(table.loc["lens_kl", protocol, "profile", k]["auc"] - 0.5) < 0.2
    assert table.loc["lens_entropy", "grouped", "without length", 11]["auc"] > 0.95
    assert table.loc["lens_entropy", "grouped", "length", 11]["auc"] < 0.65
    assert table.loc["lens_entropy", "grouped", "last layer", 11]["auc"] > 0.95
    right = found.tables["accuracy"].frame.set_index(["metric", "protocol", "features", "k"])
    line = right.loc["lens_entropy", "grouped", "profile", 5]
    assert line["accuracy"] > 0.9 and line["gain"] == pytest.approx(line["accuracy"] - line["guesses"])
    assert line["accuracy_high"] <= 1


def test_classes_and_contrasts_use_the_mean_over_layers(found, kinds):
    classes = found.tables["classes"].frame.query("metric == 'lens_entropy'").set_index("class")
    contrasts = (
        found.tables["contrasts"].frame.query("metric == 'lens_entropy' and control == 'none'").set_index("class")
    )
    rows = kinds["tiny"].rows
    level = np.array([one.metrics["lens_entropy"][:6].astype(float).mean() for one in rows])
    for kind in SHAPES:
        own = np.array([one.prompt.meta["kind"] == kind for one in rows])
        assert classes.loc[kind, "mean"] == pytest.approx(level[own].mean())
        assert classes.loc[kind, "n"] == 20 and classes.loc[kind, "steps"] == 6
        assert 0 < classes.loc[kind, "prediction_depth"] <= 1
        line = contrasts.loc[kind]
        assert line["difference"] == pytest.approx(level[own].mean() - level[~own].mean())
        assert (line["n"], line["n_against"]) == (20, 40)
        assert line["g_low"] < line["g"] < line["g_high"]


def test_mean_profiles_have_their_spread(found, kinds):
    table = found.tables["profiles"].frame.query("metric == 'lens_entropy' and `class` == 'up'")
    own = np.array(
        [one.metrics["lens_entropy"][:6].astype(float).mean(0) for one in kinds["tiny"].rows if "up" in one.prompt.text]
    )
    np.testing.assert_allclose(table["mean"], own.mean(0))
    np.testing.assert_allclose(table["sd"], own.std(0, ddof=1))
    np.testing.assert_allclose(table["depth"], np.arange(1, 7) / 6)


def test_pictures_are_written_per_metric(found, tmp_path):
    page = write_study(found, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"{name}_{metric}.png" for name in ("profiles", "map") for metric in ("lens_entropy", "lens_kl")
    }
    assert "t-SNE" in page.read_text(encoding="utf-8")


def test_families_are_told_apart_on_held_out_models(rng):
    traces = {}
    for family, slope in (("rising", 1.0), ("falling", -1.0)):
        for layers in (4, 6, 9):
            rows = [made(rng, "flat", i, layers=layers, slope=slope) for i in range(10)]
            name = f"{family} {layers}"
            traces[name] = trace(rows, layers=layers, model=name, family=family)
    found = lens(traces, LensConfig(by="family", zero_padding=True, neighbours=(3, 29)))
    table = found.tables["auc"].frame.set_index(["protocol", "features", "k"])
    assert table.loc[("grouped", "profile", 3), "auc"] > 0.95
    assert table.loc[("grouped", "profile", 3), "folds"] == 3
    assert table.loc[("published", "zero-padded", 3), "auc"] > 0.9
    assert table.loc[("grouped", "depth", 3), "auc"] < 0.7  # models of both families have each depth
    distances = found.tables["distances"].frame.set_index("measure")
    assert distances.loc["pearson", "gap_low"] > 0 and distances.loc["pearson", "models"] == 6
    notes = " ".join(found.notes)
    assert "zero-padded profiles reveal a model's number of layers" in notes
    assert "64 relative depths that all cover" in notes and "the grouped protocol has 3 folds" in notes


def test_labels_come_from_prompts_and_runs(rng):
    facts = [made(rng, "up", i, seen=["often", "never"][i % 2], shuffled=bool(i % 3)) for i in range(4)]
    of = trace(facts, temperature=0.7, model="tiny")
    names = {
        by: [row_labels({"t": of}, by)(of, one) for one in facts] for by in ("seen", "shuffled", "task", "temperature")
    }
    assert names["seen"] == ["often", "never"] * 2
    assert names["shuffled"] == ["not shuffled", "shuffled", "shuffled", "not shuffled"]
    assert names["task"] == ["up"] * 4 and names["temperature"] == ["0.7"] * 4
    assert run_facts(of)["model"] == "tiny"
    with pytest.raises(StudyError, match=r"t: no prompt and no run has 'colour'; .*kind, layers, mode, model, seen"):
        row_labels({"t": of}, "colour")


def test_labels_come_from_a_stored_runs_settings(rng, tmp_path):
    made_rows = [made(rng, "up", i) for i in range(2)]
    info = trace(made_rows).info | {"layer_stride": 1}
    for place, settings in (("sampled", {"sampler": "sample", "temperature": 0.7}), ("greedy", {"sampler": "greedy"})):
        with TraceWriter(tmp_path / place, info, {"temperature": 1.0, "task": "mmlu", **settings}) as writer:
            writer.write(list(enumerate(made_rows)))
        of = open_trace(tmp_path / place)
        assert row_labels({"t": of}, "temperature")(of, of.rows[0]) == {"sampled": "0.7", "greedy": "greedy"}[place]
        assert run_facts(of)["task"] == "mmlu"


def test_correctness_follows_the_tasks_rule(rng):
    meta = {"choices": ["1", "2", "3", "4"], "answer": "B"}
    texts = [" B. 2", " A", " no idea", " C, or B"]
    rows = [dataclasses.replace(made(rng, "up", i, **meta), text=text) for i, text in enumerate(texts)]
    of = trace(rows)
    by_first, published = (row_labels({"t": of}, "correctness", published_checker=loose) for loose in (False, True))
    assert [by_first(of, one) for one in rows] == ["correct", "incorrect", None, "incorrect"]
    assert [published(of, one) for one in rows] == ["correct", "incorrect", "incorrect", "correct"]
    ungraded = trace([made(rng, "up", 0)])
    with pytest.raises(StudyError, match="t: no answer can be graded; give --labels FILE"):
        row_labels({"t": ungraded}, "correctness")


def test_rows_about_one_story_stay_together(rng):
    one, two = made(rng, "up", 1, story=7), made(rng, "up", 2, story=7)
    of = trace([one, two], family="llama", model="tiny")
    assert row_groups()(of, one) == row_groups()(of, two) == "story 7"
    del one.prompt.meta["story"]
    assert row_groups()(of, one) != row_groups()(of, two)
    assert row_groups("kind")(of, one) == row_groups("kind")(of, two) == "kind up"
    assert model_of(of, one) == "tiny"


def test_a_prompt_is_one_group_whatever_tokens_it_becomes(rng):
    one = made(rng, "up", 1)
    other = dataclasses.replace(one, prompt_tokens=one.prompt_tokens + 50)  # another tokenizer's, or a chat template's
    of = trace([one, other])
    assert row_groups()(of, one) == row_groups()(of, other)
    bare = [
        dataclasses.replace(row, prompt=Prompt(tokens=tuple(row.prompt_tokens.tolist()), id="bare"))
        for row in (one, other)
    ]
    assert row_groups()(of, bare[0]) != row_groups()(of, bare[1])


def test_every_row_needs_the_group_key(kinds, rng):
    with pytest.raises(StudyError, match="prompt p: has no 'storey' to group by; its meta has kind"):
        lens(kinds, LensConfig(group="storey"))
    some = made(rng, "up", 1, story=7), made(rng, "up", 2)
    of = trace(some)
    assert row_groups("story")(of, some[0]) == "story 7"
    with pytest.raises(StudyError, match="has no 'story' to group by; its meta has kind"):
        row_groups("story")(of, some[1])


def test_too_few_training_answers_for_the_neighbours(rng):
    thirty = [made(rng, kind, i) for kind in ("up", "down") for i in range(15)]
    told = r"folds have 27 training answers, fewer than the 29 neighbours; give more answers, or fewer --neighbours"
    with pytest.raises(StudyError, match=told):
        lens({"tiny": trace(thirty)}, LensConfig(neighbours=(29,)))
    of_stories = [
        dataclasses.replace(one, prompt=dataclasses.replace(one.prompt, meta=dict(one.prompt.meta))) for one in thirty
    ]
    for number, one in enumerate(of_stories):
        one.prompt.meta["story"] = number % 2
    found = lens({"tiny": trace(of_stories)}, LensConfig(neighbours=(20, 29)))
    assert set(found.tables["auc"].frame["protocol"]) == {"published"}
    notes = " ".join(found.notes)
    assert "the grouped protocol has 2 folds" in notes and "too few groups to hold any out" not in notes
    assert "k of 20, 29 skipped: grouped folds have 1" in notes
    assert "k of 29 skipped: published folds have 27 training answers" in notes


def test_unusable_settings_are_refused(kinds):
    with pytest.raises(StudyError, match="fewer than the 30 folds"):
        lens(kinds, LensConfig(folds=30))
    with pytest.raises(StudyError, match="are of the class '6'; give answers of two classes"):
        lens(kinds, LensConfig(by="layers"))
    with pytest.raises(StudyError, match="is no metric with a value for each layer"):
        lens(kinds, LensConfig(metric="entropy"))


def test_the_command_writes_tables_and_refuses_in_one_line(kinds, tmp_path):
    kinds["tiny"].save(tmp_path / "trace")
    arguments = ["study", "lens", str(tmp_path / "trace"), "--by", "kind", "--neighbours", "3"]
    arguments += ["--overwrite", "--out", str(tmp_path / "out")]
    done = run_command(*arguments, "--folds", "5", "--windows", "each", "--steps", "4")
    assert done.status == 0, done.err
    table = pd.read_csv(tmp_path / "out" / "tables" / "auc.csv")
    assert set(table["k"]) == {3} and set(table["folds"]) == {5} and (table["n"] == 60).all()
    assert set(pd.read_csv(tmp_path / "out" / "tables" / "profiles.csv")["window"]) == {1, 2, 3, 4}
    refused = run_command(*arguments, "--folds", "21")
    assert refused.status == 2 and refused.err.count("\n") == 1
    assert "has 20 answers, fewer than the 21 folds" in refused.err
