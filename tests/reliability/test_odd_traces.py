"""Pictures, summaries, pages, stored traces and studies survive traces with little or nothing in them.

Each one shows the values that exist, or refuses in one line. A warning fails any test of this suite.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxtrace import figures
from jaxtrace.errors import JaxtraceError, StudyError
from jaxtrace.figures.plots import attention_map, entropy_steps
from jaxtrace.figures.tables.stored import stored_table
from jaxtrace.grading.labels import label_of, write_labels
from jaxtrace.settings.run import EXECUTION_FIELDS, RunConfig
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.means import finite_mean
from jaxtrace.studies._shared.page import terminal_table, write_study
from jaxtrace.studies._shared.result import Result
from jaxtrace.studies.dynamics.compute import dynamics
from jaxtrace.studies.dynamics.long_format import write_long
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.patterns.compute import patterns
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.samplers.answers import SamplerRun, stored_runs
from jaxtrace.studies.samplers.compute import samplers
from jaxtrace.studies.samplers.settings import SamplersConfig
from jaxtrace.traces import StoredTrace, TraceWriter, open_trace
from jaxtrace.traces.trace import Trace
from tests.figures.traces import trace as trace_of
from tests.reliability.odd_traces import odd_traces

ODD = odd_traces()
FEW = {"resamples": 5}


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch):
    """Pictures are drawn with few pixels, which is faster."""
    for place in ("figures.plots", "figures.html", "studies._shared.page"):
        monkeypatch.setattr(f"jaxtrace.{place}.png", lambda figure, dpi=None: _png(figure, 25))


_png = figures.html.png


def shown(table: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def written(result: Result, place: Path) -> Result:
    for name, table in result.tables.items():
        shown(terminal_table(name, table))
    write_study(result, place)
    return result


def read(trace: StoredTrace, place: Path) -> None:
    list(trace.rows), trace.texts, trace.lengths, trace.prompt_steps, trace.to_xarray()
    for table in (trace.tokens, trace.layers, trace.prompts):
        table.to_table()
    shown(stored_table(trace))
    shown(figures.summary_table(trace))


def stored(trace: Trace, place: Path) -> None:
    trace.save(place / "run")
    whole = open_trace(place / "run")
    for part in (whole, whole.filter(prompts=[0]), whole.filter(prompts=[99])):
        read(part, place)


def without_a_part(trace: Trace, place: Path) -> None:
    TraceWriter(place / "run", trace.info)
    started = open_trace(place / "run")
    read(started, place)
    figures.write_plots(started.to_xarray(), place)
    figures.write_report(started, place / "report.html")


def labels(trace: Trace, place: Path) -> Path:
    graded = [label_of(row) for row in trace.rows]
    wrong = [label.model_copy(update={"wrong_from": 2, "wrong_to": 3}) for label in graded]
    write_labels(wrong, place / "labels.jsonl")
    return place / "labels.jsonl"


def stored_samplers(trace: Trace, place: Path) -> dict[str, list[SamplerRun]]:
    opened = {}
    for name in ("greedy", "entropix"):
        config = RunConfig(sampler=name).model_dump(mode="json", exclude=EXECUTION_FIELDS)
        with TraceWriter(place / name, {**trace.info, "prompts": "hash"}, config) as writer:
            if trace.rows:
                writer.write([*enumerate(trace.rows)])
        opened[name] = open_trace(place / name)
    return stored_runs(opened)


def lens_study(trace: Trace, place: Path, **settings: object) -> None:
    from jaxtrace.studies.lens.compute import lens
    from jaxtrace.studies.lens.settings import LensConfig

    written(lens({"m": trace}, LensConfig.model_validate({"folds": 2, "neighbours": (1, 2), **settings})), place)


def confidence(trace: Trace, place: Path, **settings: object) -> None:
    from jaxtrace.studies.confidence.compute import train
    from jaxtrace.studies.confidence.settings import ConfidenceConfig

    config = ConfidenceConfig.model_validate({"folds": 2, "resamples": 5, **settings})
    trained, result = train({"m": trace}, None, config)
    written(result, place)
    trained.apply(trace)
    figures.write_report(trace, place / "report.html", trained.answer_confidences(trace))


def of_patterns(trace: Trace, place: Path, by: str) -> Result:
    config = PatternsConfig(by=by, labels=labels(trace, place), resamples=100)
    return written(patterns({"m": trace}, config), place)


def of_dynamics(trace: Trace, place: Path, **settings: object) -> Result:
    return written(dynamics({"m": trace}, DynamicsConfig.model_validate(FEW | settings)), place)


Consumer = Callable[[Trace, Path], object]
QUICK: Mapping[str, Consumer] = {
    "xarray": lambda trace, _: trace.to_xarray(),
    "summary": lambda trace, _: shown(figures.summary_table(trace)),
    "plots": lambda trace, place: figures.write_plots(trace.to_xarray(), place),
    "stored": stored,
    "without a part": without_a_part,
    "grades": lambda trace, _: [label_of(row) for row in trace.rows],
    "long": lambda trace, place: write_long("m", trace, place / "long.csv"),
}
ALL: Mapping[str, Consumer] = {
    **QUICK,
    "report": lambda trace, place: figures.write_report(trace, place / "report.html"),
    "long parquet": lambda trace, place: write_long("m", trace, place / "long.parquet", hdi="jsd"),
    "dynamics": of_dynamics,
    "dynamics by ranks": lambda trace, place: of_dynamics(trace, place, hdi="cv", correlation="spearman"),
    "dynamics of few steps": lambda trace, place: of_dynamics(trace, place, least_steps=3, share=0.5),
    "patterns": lambda trace, place: of_patterns(trace, place, "condition"),
    "patterns by grade": lambda trace, place: of_patterns(trace, place, "grade"),
    "patterns by wrong step": lambda trace, place: of_patterns(trace, place, "wrong_step"),
    "samplers": lambda trace, place: written(samplers(stored_samplers(trace, place), SamplersConfig()), place),
    "lens": lambda trace, place: lens_study(trace, place, by="kind"),
    "lens of attention": lambda trace, place: lens_study(
        trace, place, by="kind", metric="attention_entropy", windows="each"
    ),
    "lens by correctness": lambda trace, place: lens_study(trace, place, by="correctness", steps=3, windows=2),
    "confidence": confidence,
    "confidence of a network": lambda trace, place: confidence(trace, place, keep="mlp"),
}


def survives(consumer: Consumer, trace: Trace, place: Path) -> None:
    try:
        consumer(trace, place)
    except JaxtraceError as error:
        assert str(error).isprintable() and ";" in str(error), error


@pytest.mark.parametrize(
    "name", ["nan from the first step", "no rows", "rows without steps", "one layer, one head, one step"]
)
@pytest.mark.parametrize("consumer", QUICK)
def test_a_trace_with_little_in_it_is_shown(name, consumer, tmp_path):
    survives(QUICK[consumer], ODD[name], tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("consumer", ALL)
@pytest.mark.parametrize("name", ODD)
def test_every_odd_trace_is_shown_or_refused_in_one_line(name, consumer, tmp_path):
    survives(ALL[consumer], odd_traces()[name], tmp_path)


def test_a_picture_says_that_nothing_is_finite():
    figure = entropy_steps(ODD["nan from the first step"].to_xarray())
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["no finite values"] * 4
    empty = attention_map(ODD["no rows"].to_xarray())
    assert [text.get_text() for text in empty.axes[0].texts] == ["no prompt has a step"]


def test_a_summary_without_a_finite_value_has_no_means():
    rows = odd_traces()["nan from the first step"].rows
    for row in rows:
        row.metrics["lens_top1"][:] = 7  # as the engine's argmax of NaN
    assert [label for label, _ in figures.summary.summary(trace_of(rows))] == ["prompts", "tokens", "stopped by"]


def test_a_study_names_what_a_trace_without_finite_logits_lacks():
    nan = {"m": ODD["nan from the first step"]}
    with pytest.raises(StudyError, match="m: has no step with finite logits; trace another model"):
        dynamics(nan, DynamicsConfig())
    with pytest.raises(StudyError, match="m: has no step with finite logits; trace another model"):
        patterns(nan, PatternsConfig())
    with pytest.raises(StudyError, match="m: has no finished prompt; resume its run"):
        patterns({"m": ODD["no rows"]}, PatternsConfig())


def test_rows_without_finite_logits_are_excluded_and_counted(tmp_path):
    some, whole = (dynamics({"m": ODD[name]}, DynamicsConfig(**FEW)) for name in ("every third row nan", "two rows"))
    assert "m: 4 prompts without a step of finite logits are excluded." in some.notes
    assert some.tables["table1_generation"].frame["prompts"].tolist() == [8]
    assert not any("excluded." in note for note in whole.notes)
    answers = samplers(stored_samplers(ODD["every third row nan"], tmp_path), SamplersConfig())
    assert any("8 of 24 answers have no finite entropy" in note for note in answers.notes)
    assert answers.tables["samplers"].frame["entropy"].notna().all()


def test_answers_without_a_finite_value_are_excluded_from_a_comparison():
    trace = odd_traces()["two steps"]
    for row in trace.rows[:2]:
        row.metrics["attention_entropy"][:] = np.nan
    compared = patterns({"m": trace}, PatternsConfig(resamples=100)).tables["comparisons"].frame
    frame = compared.set_index(["metric", "control"])
    assert frame.loc[("attention_entropy", "none"), ["n_first", "n_second"]].tolist() == [5, 5]
    assert frame.loc[("attention_varentropy", "none"), ["n_first", "n_second"]].tolist() == [6, 6]
    assert np.isfinite(frame["difference"]).all()


def test_residuals_and_means_are_of_the_finite_values():
    x, y = np.arange(6.0), np.array([1.0, 3, 5, np.nan, 9, np.inf])
    np.testing.assert_allclose(residualize(y, x), [0, 0, 0, np.nan, 0, np.nan], atol=1e-12)
    assert np.isnan(residualize([np.nan, np.nan], [1.0, 2.0])).all()
    np.testing.assert_array_equal(finite_mean([[1.0, np.nan], [3.0, np.inf]], axis=0), [2.0, np.nan])
