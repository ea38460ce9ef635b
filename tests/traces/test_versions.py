"""Stored versions of the metrics' definitions, and warnings if they differ."""

import dataclasses

import pytest

from jaxtrace import schema
from jaxtrace.errors import StoreError
from jaxtrace.schema import METRICS_VERSION
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.studies._shared.traces import study_traces
from jaxtrace.traces import TraceWriter, open_trace, partition_of
from tests.traces.damage import edit_run
from tests.traces.rows import INFO, make_row, make_trace

NOTE = (
    "runs of metrics_version 2 and 3 are together, between which the definition changed of entropy, surprise_z; "
    "compare these metrics only among runs of one version"
)


@pytest.fixture
def entropy_changed(monkeypatch):
    """Add a version 3 of the definitions that changes entropy."""
    changed = dataclasses.replace(schema.METRICS["entropy"], changed=(3,))
    monkeypatch.setitem(schema.QUANTITIES, "entropy", changed)


def stored(root, version=METRICS_VERSION, partition="", resume=False):
    options = {"partition": partition, "resume": resume, "metrics_version": version}
    with TraceWriter(root, INFO, **options) as writer:
        writer.write([(len(writer.done), make_row(0, 2))])
    return root


def test_run_without_a_version_has_version_one(tmp_path):
    make_trace().save(tmp_path)
    edit_run(tmp_path, lambda run: run.pop("metrics_version"))
    assert open_trace(tmp_path).metrics_versions == (1,)


def test_copied_run_keeps_its_version(tmp_path):
    open_trace(stored(tmp_path / "a", 7)).save(tmp_path / "b")
    assert open_trace(tmp_path / "b").metrics_versions == (7,)


def test_dataset_of_two_definitions_warns_and_names_the_metrics(tmp_path, entropy_changed):
    for version in (2, 3):
        stored(tmp_path, version, partition_of(run=version))
    with pytest.warns(UserWarning) as warned:
        trace = open_trace(tmp_path)
    assert [str(warning.message) for warning in warned] == [f"{tmp_path}: {NOTE}"]
    assert trace.metrics_versions == (2, 3) and trace.filter(run=2).metrics_versions == (2,)


def test_study_of_two_definitions_warns_and_names_the_metrics(tmp_path, entropy_changed):
    places = [str(stored(tmp_path / str(version), version)) for version in (2, 3)]
    with pytest.warns(UserWarning) as warned:
        study_traces(StudyConfig(traces=places), tmp_path)
    assert [str(warning.message) for warning in warned] == [f"{', '.join(places)}: {NOTE}"]


def test_versions_with_equal_definitions_do_not_warn(tmp_path):
    for version in (2, 3):
        stored(tmp_path, version, partition_of(run=version))
    assert open_trace(tmp_path).metrics_versions == (2, 3)


def test_resume_under_other_definitions_is_refused(tmp_path, entropy_changed):
    stored(tmp_path, 2)
    with pytest.raises(
        StoreError, match=r"metrics_version is 2 in the run there and 3 in this one, .* entropy"
    ) as error:
        stored(tmp_path, 3, resume=True)
    assert "\n" not in str(error.value)


def test_resumed_run_keeps_its_version(tmp_path):
    stored(stored(tmp_path, 2), 3, resume=True)
    assert open_trace(tmp_path).metrics_versions == (2,)
