"""Traces of a study, opened or made."""

import dataclasses
from pathlib import Path

import pytest

from jaxtrace.errors import StudyError
from jaxtrace.studies._shared.progress import Silent
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.studies._shared.traces import load_models, model_run_config, study_traces
from jaxtrace.traces.requirements import require_metrics
from jaxtrace.traces.trace import Trace
from tests.traces.rows import INFO, make_trace


@pytest.fixture
def stored(tmp_path):
    """Traces of models a, a and b."""
    places = [str(tmp_path / name) for name in ("one", "two", "three")]
    for place, model in zip(places, "aab", strict=True):
        dataclasses.replace(make_trace(), info=INFO | {"model": model}).save(place)
    return places


def test_traces_are_labelled_by_model_or_by_directory(stored, tmp_path):
    opened = study_traces(StudyConfig(traces=tuple(stored)), tmp_path)
    assert list(opened) == [stored[0], stored[1], "b"]
    assert opened["b"].rows[3].text == "completion\n3"


def test_samples_are_no_prompts_of_a_study_that_runs_models_itself():
    config = StudyConfig(models=("demo",), run={"sampler": "sample", "samples": 2})
    with pytest.raises(StudyError, match="samples: is 2; this study takes each prompt once"):
        next(load_models(config))


def test_a_finished_run_is_not_repeated(tmp_path):
    run = {"text": ["3 + 5 ="], "max_new_tokens": 2, "probes": "output"}
    config = StudyConfig(models=("demo",), run=run)
    assert model_run_config(config, "some/model", Path("out")).out == "out/traces/model"
    done = []

    class Recorded(Silent):
        def run(self, label, run):
            done.append((label, run.done, run.total))
            return super().run(label, run)

    traces = study_traces(config, tmp_path, Recorded())
    assert traces["demo"].rows[0].metrics["entropy"].shape == (2,)
    assert (tmp_path / "traces" / "demo" / "run.json").exists()
    again = study_traces(config, tmp_path, Recorded())
    assert done == [("demo", 0, 1), ("demo", 1, 1)]
    assert again["demo"].texts == traces["demo"].texts


@pytest.mark.parametrize("given", [{}, {"traces": ("x",), "models": ("demo",)}])
def test_traces_and_models_exclude_each_other(given, tmp_path):
    with pytest.raises(StudyError, match="give traces to study, or models to trace first"):
        study_traces(StudyConfig(**given), tmp_path)


def test_a_missing_metric_names_its_probes():
    trace = make_trace(groups=("output", "lens"))
    require_metrics({"m": trace}, "entropy", "lens_entropy")
    with pytest.raises(StudyError, match=r"m: has no hdi, sink_mass; .* --probes that include attention,dispersion"):
        require_metrics({"m": trace}, "entropy", "hdi", "sink_mass")
    with pytest.raises(StudyError, match="no finished prompt"):
        require_metrics({"m": Trace([], {})}, "entropy")
