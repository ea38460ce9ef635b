"""`study samplers`: numbers from hand-made answers, and runs of a model with known answers."""

import contextlib
import dataclasses

import numpy as np
import pandas as pd
import pytest

from jaxtrace import Dslider, Probes, Prompt, Row
from jaxtrace.errors import ConfigError, StudyError
from jaxtrace.figures.theme import LIGHT
from jaxtrace.run import engine_settings, load_prompts
from jaxtrace.settings.run import EXECUTION_FIELDS, RunConfig
from jaxtrace.settings.validation import validated
from jaxtrace.statistics.controls import residualize
from jaxtrace.studies.samplers.answers import SamplerRun, named_settings, run_samplers, stored_runs
from jaxtrace.studies.samplers.compute import answer_lines, comparisons, over_prompts_and_seeds, samplers
from jaxtrace.studies.samplers.settings import SamplersConfig
from jaxtrace.traces import TraceWriter, open_trace
from tests.cli.conftest import jaxtrace  # noqa: F401
from tests.engine.automaton import automaton

PROMPTS = [Prompt(text=f"{i} + 1?", id=f"sum-{i}", meta={"answer": str(i + 1), "solution": ""}) for i in range(6)]


def answer(prompt, text, entropy, quadrant=None):
    steps = len(text.split())
    metrics = {
        "token": np.arange(steps, dtype=np.int32),
        "entropy": np.full(steps, entropy, np.float32),
        "varentropy": np.full(steps, 2 * entropy, np.float32),
    }
    if quadrant is not None:
        metrics["quadrant"] = np.resize(np.int32(quadrant), steps)
    return Row(prompt, np.zeros(3, np.int32), ("",) * 3, metrics, ("x",) * steps, text, "stop_token")


@pytest.fixture(scope="module")
def runs():
    """Return two runs: greedy is right twice in three; the other is always right, longer and more uncertain by 0.5."""
    greedy = [answer(p, p.meta["answer"] if i % 3 else "no 99 !", 1.0 + i) for i, p in enumerate(PROMPTS)]
    found = [SamplerRun("greedy", 0, greedy, 2.0)]
    for seed in (0, 1):
        rows = [answer(p, f"so so {p.meta['answer']}", 1.5 + i, [0, 0, 4]) for i, p in enumerate(PROMPTS)]
        found.append(SamplerRun("entropix-classic", seed, rows, 1.0 + seed))
    return found


@pytest.fixture(scope="module")
def result(runs):
    return samplers({"tiny": runs}, SamplersConfig())


def test_answer_lines_hold_grades_and_quadrants(runs):
    lines = list(answer_lines("tiny", runs[1]))
    assert [line["correct"] for line in lines] == [1.0] * 6
    assert lines[2]["entropy"] == 3.5 and lines[2]["length"] == 3 and lines[2]["prompt"] == "sum-2"
    np.testing.assert_allclose([lines[0]["flowing"], lines[0]["treading"], lines[0]["adaptive"]], [2 / 3, 0, 1 / 3])
    unknown = dataclasses.replace(runs[0], rows=[answer(Prompt(text="?"), "a b", 1.0)])
    assert np.isnan(next(iter(answer_lines("tiny", unknown)))["correct"])


def test_means_and_speed_by_sampler(result):
    table = result.tables["samplers"].frame.set_index("sampler")
    greedy, other = table.loc["greedy"], table.loc["entropix-classic"]
    assert (greedy.accuracy, other.accuracy) == (4 / 6, 1.0)
    assert (greedy.entropy, other.entropy, other.varentropy) == (3.5, 4.0, 8.0)
    assert greedy.accuracy_low < greedy.accuracy < greedy.accuracy_high
    assert (greedy.seeds, other.seeds, greedy.n) == (1, 2, 6)
    assert greedy.tokens_per_second == (4 * 1 + 2 * 3) / 2
    assert other.tokens_per_second == (18 / 1 + 18 / 2) / 2
    assert np.isnan(greedy.tokens_per_second_low) and other.tokens_per_second_low == 0 and other.tokens_per_second_few


def test_comparisons_pair_the_same_prompts(result):
    table = result.tables["comparisons"].frame.set_index("of")
    assert set(table.sampler) == {"entropix-classic"} and set(table.against) == {"greedy"}
    np.testing.assert_allclose(
        table.loc["entropy", ["difference", "difference_low", "difference_high"]].astype(float), 0.5
    )
    np.testing.assert_allclose(table.loc["accuracy", "difference"], 2 / 6)
    np.testing.assert_allclose(table.loc["length", "difference"], 3 - 10 / 6)
    assert table.loc["length", "p"] < 0.2 and table.loc["entropy", "n"] == 6


def test_quadrant_shares(result):
    table = result.tables["quadrants"].frame.set_index("quadrant")
    np.testing.assert_allclose(table.share, [2 / 3, 0, 0, 0, 1 / 3])
    assert set(table.sampler) == {"entropix-classic"}
    for picture in result.pictures.values():
        assert picture.draw(LIGHT).axes


def test_intervals_are_over_prompts_and_seeds():
    """Equal seeds give the width of prompts alone, different ones a wider interval; prompts with NaN are dropped."""
    prompts = np.arange(30.0)[:, None]
    same, differing = np.repeat(prompts, 3, axis=1), prompts + np.array([0.0, 30.0, 60.0])
    narrow, wide = (over_prompts_and_seeds(values, 0) for values in (same, differing))
    assert narrow.value == 14.5 and narrow.n == 30
    np.testing.assert_allclose(narrow.high - narrow.low, 2 * 1.96 * prompts.std() / np.sqrt(30), rtol=0.15)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert over_prompts_and_seeds(np.array([[1.0], [np.nan], [3.0]]), 0).n == 2
    assert np.isnan(over_prompts_and_seeds(np.full((3, 1), np.nan), 0).value)


def test_no_quadrants_and_no_accuracy_without_data(runs):
    unknown = [answer(Prompt(text="?", id=str(i)), "a b", 1.0) for i in range(3)]
    result = samplers(
        {"tiny": [SamplerRun("greedy", 0, unknown, 1.0), SamplerRun("t1", 0, unknown, 1.0)]}, SamplersConfig()
    )
    assert "quadrants" not in result.tables and "quadrants" not in result.pictures
    assert set(result.tables["comparisons"].frame["of"]) == {"entropy", "length", "entropy_at_equal_length"}


def test_comparisons_use_prompts_with_both_values(runs):
    """Greedy has a known answer on prompts 1 to 5, the other on 0 to 4 and no entropy on 2: accuracy pairs 1 to 4."""
    greedy, other = runs[:2]
    unknown = Prompt(text="?")
    rows = [dataclasses.replace(greedy.rows[0], prompt=unknown), *greedy.rows[1:]]
    others = [*other.rows[:5], dataclasses.replace(other.rows[5], prompt=unknown)]
    found = {"greedy": dataclasses.replace(greedy, rows=rows), "other": dataclasses.replace(other, rows=others)}
    answers = pd.DataFrame([line for one in found.values() for line in answer_lines("tiny", one)])
    answers.loc[(answers.sampler == other.sampler) & (answers.prompt == "sum-2"), "entropy"] = np.nan
    table = pd.DataFrame(comparisons("tiny", answers, SamplersConfig())).set_index("of")
    assert table["n"].to_dict() == {"entropy": 5, "length": 6, "accuracy": 4, "entropy_at_equal_length": 5}
    np.testing.assert_allclose(table.difference["accuracy"], 1 / 4)
    own, theirs = np.array([1.0, 2, 4, 5, 6]), np.array([3.0, 1, 3, 1, 1])  # of all but prompt 2: entropy, length
    residuals = residualize(np.concatenate([own + 0.5, own]), np.log(np.concatenate([np.full(5, 3.0), theirs])))
    want = residuals[:5].mean() - residuals[5:].mean()
    np.testing.assert_allclose(table.difference["entropy_at_equal_length"], want)
    answers.loc[answers.sampler == "greedy", ["correct", "entropy"]] = np.nan
    assert [line["of"] for line in comparisons("tiny", answers, SamplersConfig())] == ["length"]


def test_names_distinguish_samplers():
    model, run = automaton([*range(1, 9), 0]), RunConfig(model="tiny", text="x")
    dslider = {"sampler": "dslider"}
    entries = ("greedy", dslider, dslider | {"pause": "3"}, dslider | {"pause": "4"}, {"temperature": 0.7})
    settings = named_settings(model, run, validated(SamplersConfig, {"samplers": entries}, "x"))
    assert list(settings) == ["greedy", "dslider", "dslider pause=3", "dslider pause=4", "t0.7"]
    assert [one.sampler for one in settings.values()][1:4] == [Dslider(), Dslider(pause=3), Dslider(pause=4)]
    near = {"samplers": [{"temperature": 0.7}, {"temperature": 0.7000001}]}
    assert list(named_settings(model, run, validated(SamplersConfig, near, "x"))) == [
        "t0.7 temperature=0.7",
        "t0.7 temperature=0.7000001",
    ]
    for same in (["entropix", {"sampler": "entropix", "thresholds": "classic"}], [dslider, dslider | {"seed": 3}]):
        with pytest.raises(StudyError, match="two are the same"):
            named_settings(model, run, validated(SamplersConfig, {"samplers": same}, "x"))


@pytest.mark.parametrize("name", ["compat_duplicate_last_prompt_token", "prompt_positions"])
def test_settings_that_add_undrawn_steps_are_refused(name):
    model = automaton([*range(1, 9), 0])
    for run, entry in (({name: True}, {}), ({}, {name: True})):
        config = SamplersConfig(samplers=({"sampler": "greedy"} | entry,))
        with pytest.raises(StudyError, match=f"{name}: is true; this study compares sampled tokens"):
            run_samplers(model, RunConfig(model="tiny", text="x", **run), config)


def test_random_samplers_run_with_every_seed(tmp_path):
    """The model counts up; the draws equal those of `Model.generate` with the same settings."""
    model, file = automaton([*range(1, 9), 0]), tmp_path / "prompts.jsonl"
    file.write_text('{"tokens": [1], "answer": "x"}\n{"tokens": [2, 3], "answer": "x"}\n', encoding="utf-8")
    run = RunConfig(model="tiny", prompts=file, max_new_tokens=4, probes=("none",))
    config = SamplersConfig(samplers=("greedy", {"temperature": 2.0}), seeds=(3, 4))
    found, told = [], []
    found = run_samplers(model, run, config, lambda *counts: told.append(counts))
    assert [(one.sampler, one.seed) for one in found] == [("greedy", 3), ("t2", 3), ("t2", 4)]
    assert told == [(2, 6), (4, 6), (6, 6)] and all(one.seconds > 0 for one in found)
    assert found[0].rows[1].metrics["token"].tolist() == [4, 5, 6, 7]
    assert set(found[0].rows[0].metrics) >= {"entropy", "varentropy"}
    lone = run.model_copy(update={"sampler": "sample", "temperature": 2.0, "seed": 4})
    drawn = {"sampler": engine_settings(lone, (), None).sampler, "probes": Probes.of("output")}
    want = model.generate([[1], [2, 3]], max_new_tokens=4, seed=4, **drawn).rows
    for got, same in zip(found[2].rows, want, strict=True):
        np.testing.assert_array_equal(got.metrics["token"], same.metrics["token"])
    with pytest.raises(StudyError, match="two are the same"):
        run_samplers(model, run, SamplersConfig(samplers=("greedy", "greedy")))


def stored(model, run, out, complete=True):
    """Store a run as `jaxtrace trace` does and open its trace."""
    settings = engine_settings(run, (), None)
    rows = [
        row for batch in model.generate_rows(model.encode(load_prompts(run), chat=False), settings) for row in batch
    ]
    info = model.info("generate", settings) | {"prompts": run.prompts.read_text()}
    config = run.model_dump(mode="json", exclude=EXECUTION_FIELDS)
    with contextlib.suppress(KeyboardInterrupt), TraceWriter(out, info, config) as writer:
        writer.write(rows)
        if not complete:
            raise KeyboardInterrupt
    return open_trace(out)


def test_stored_runs_match_new_ones_but_for_their_time(tmp_path):
    model, file, other = automaton([*range(1, 9), 0]), tmp_path / "prompts.jsonl", tmp_path / "now" / "prompts.jsonl"
    other.parent.mkdir()
    file.write_text('{"tokens": [1], "answer": "x"}\n{"tokens": [2, 3], "answer": "x"}\n', encoding="utf-8")
    other.write_text('{"tokens": [3], "answer": "x"}\n', encoding="utf-8")
    run = RunConfig(model="tiny", prompts=file, max_new_tokens=4, probes=("output",))
    hot = {"sampler": "sample", "temperature": 2.0}
    made = {
        name: run.model_copy(update=changes)
        for name, changes in (("b", hot | {"seed": 3}), ("a", hot | {"seed": 4}), ("greedy", {"seed": 3}))
    }
    traces = {name: stored(model, one, tmp_path / name) for name, one in made.items()}
    config = SamplersConfig(samplers=("greedy", {"temperature": 2.0}), seeds=(3, 4))
    (found,) = stored_runs(traces).values()
    assert [(one.sampler, one.seed) for one in found] == [("greedy", 3), ("t2", 3), ("t2", 4)]
    got, want = (samplers({"tiny": some}, config).tables for some in (found, run_samplers(model, run, config)))
    for name in ("answers", "comparisons"):
        pd.testing.assert_frame_equal(got[name].frame, want[name].frame)
    assert got["samplers"].frame["tokens_per_second"].isna().all()
    for changes, message in (
        (made["a"], "two of its runs have the same sampler and seed"),
        (made["a"].model_copy(update={"seed": 5, "prompts": other}), "its samplers have answered different prompts"),
        (made["a"].model_copy(update={"prompt_positions": True}), "made with prompt_positions"),
        (made["a"].model_copy(update={"samples": 2}), "has several samples of each prompt"),
        (made["a"].model_copy(update={"seed": 5, "max_new_tokens": 3}), r"its runs differ in max_new_tokens \(3, 4\)"),
    ):
        wrong = tmp_path / "".join(filter(str.isalpha, message))
        with pytest.raises(StudyError, match=message):
            stored_runs(traces | {"wrong": stored(model, changes, wrong)})
    with pytest.raises(StudyError, match="is not finished; resume its run first"):
        stored_runs({"part": stored(model, made["a"], tmp_path / "part", complete=False)})
    with pytest.raises(StudyError, match="does not say how its tokens were drawn"):
        stored_runs({"memory": model.generate([[1]], max_new_tokens=2)})


def test_entries_are_names_or_settings():
    config = validated(SamplersConfig, {"samplers": ["greedy", {"temperature": 0.7}]}, "x")
    assert config.samplers == ({"sampler": "greedy"}, {"sampler": "sample", "temperature": 0.7})
    with pytest.raises(ConfigError, match="no such setting"):
        validated(SamplersConfig, {"sampler": "greedy"}, "x")


def test_run_options_contradict_traces(jaxtrace):  # noqa: F811
    for option in (("--sampler", "greedy"), ("--draws", "1")):
        done = jaxtrace("study", "samplers", "somewhere", *option)
        assert done.status == 2 and f"{option[0]} affects only runs that the study makes" in done.err
