"""Sweeps over revisions of a model, and studies that tell them apart; the hub's cache is filled beforehand."""

import functools
import hashlib
import json
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
import yaml

import jaxtrace as jt
from jaxtrace import Probes
from jaxtrace.checkpoints import huggingface
from jaxtrace.engine.settings import Settings
from jaxtrace.errors import JaxtraceError
from jaxtrace.studies._shared.labels import row_labels
from jaxtrace.studies._shared.traces import by_model
from jaxtrace.studies.lens.compute import lens
from jaxtrace.studies.lens.settings import LensConfig
from jaxtrace.studies.patterns.compute import patterns
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.samplers.answers import stored_runs
from jaxtrace.sweeping import Machine, estimate_sweep, open_sweep, read_sweep
from jaxtrace.traces.trace import Trace
from tests.checkpoints.conftest import CONFIG, Folder
from tests.commands import run_command
from tests.sweeping.conftest import RecordingWatch

STEPS = ("step0", "step1000")
MODEL = "someone/model"


def commit_of(revision):
    return hashlib.sha1(revision.encode()).hexdigest()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A model with a revision for each step, in a cache that the hub's client reads without a network."""
    cache, monkeypatch = tmp_path_factory.mktemp("hub"), pytest.MonkeyPatch()
    repository = cache / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "snapshots").mkdir()
    for number, revision in enumerate(STEPS):
        (repository / "refs" / revision).write_text(commit_of(revision))
        folder = Folder(repository / "snapshots" / commit_of(revision), CONFIG)
        rng = np.random.default_rng(number)
        folder.weights = {name: rng.standard_normal(x.shape).astype(np.float32) for name, x in folder.weights.items()}
        folder.write()
    offline = functools.partial(huggingface_hub.snapshot_download, cache_dir=cache, local_files_only=True)
    monkeypatch.setattr(huggingface, "snapshot_download", offline)
    cached = functools.partial(huggingface_hub.try_to_load_from_cache, cache_dir=cache)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    yield cache
    monkeypatch.undo()


@pytest.fixture(scope="module")
def cells(hub, tmp_path_factory):
    """Return the cells of a sweep file over the steps, with other fields."""
    directory = tmp_path_factory.mktemp("sweep")
    (directory / "prompts.jsonl").write_text("".join(f'{{"tokens": [1, {i}]}}\n' for i in range(2, 8)))
    settings = {"max_new_tokens": 4, "probes": ["output", "lens", "attention"], "mesh": None}

    def read(**fields):
        sweep = {"models": MODEL, "revisions": list(STEPS), "tasks": {"prompts": str(directory / "prompts.jsonl")}}
        (directory / "steps.yaml").write_text(
            yaml.safe_dump({name: x for name, x in (sweep | {"settings": settings} | fields).items() if x is not None})
        )
        return read_sweep(directory / "steps.yaml")

    return read


@pytest.fixture(scope="module")
def swept(cells, tmp_path_factory):
    """The finished sweep: its cells, directory, callbacks and manifest."""
    root = tmp_path_factory.mktemp("dataset")
    found, watch = cells(), RecordingWatch()
    sweep = open_sweep(found, root, watch)
    sweep.run(watch)
    return found, root, watch, sweep.manifest


def test_each_model_has_a_cell_at_each_revision(cells):
    found = cells(models=[MODEL, "someone/other"], samplers=["greedy", {"temperature": 0.5}])
    assert [(cell.model, cell.revision, cell.config.revision) for cell in found[::2]] == [
        (model, step, step) for model in (MODEL, "someone/other") for step in STEPS
    ]
    assert found[0].partition.startswith("model=someone%2Fmodel/revision=step0/task=prompts/run=greedy-")
    assert len({cell.partition for cell in found}) == 8


def test_each_revision_is_opened_traced_and_recorded(swept):
    found, root, watch, manifest = swept
    assert [state for _, state in watch.ends] == ["complete", "complete"]
    assert sorted(manifest.records) == sorted(cell.partition for cell in found)
    dataset, tokens = jt.open(root), {}
    for cell, step in zip(found, STEPS, strict=True):
        run = json.loads((root / "runs" / cell.partition / "run.json").read_text())
        assert run["config"]["revision"] == run["info"]["revision_name"] == step
        assert run["info"]["revision"] == commit_of(step)
        of_step = dataset.filter(revision=step)
        assert of_step.info["checkpoint"] == run["info"]["checkpoint"]
        tokens[step] = [row.metrics["token"].tolist() for row in of_step.rows]
    assert tokens["step0"] != tokens["step1000"]
    assert {*dataset.tokens.to_table(columns=["revision"])["revision"].to_pylist()} == {*STEPS}
    watch = RecordingWatch()
    open_sweep(found, root, watch).run(watch)
    assert watch.ends == []


def test_runs_with_and_without_the_axis_share_a_dataset(cells, swept, tmp_path):
    shutil.copytree(swept[1], tmp_path / "out")
    (alone,) = cells(models={"model": MODEL, "revision": "step0"}, revisions=None)
    assert (alone.revision, alone.run) == (None, swept[0][0].run)
    open_sweep([alone], tmp_path / "out", RecordingWatch()).run(RecordingWatch())
    dataset = jt.open(tmp_path / "out")
    values = dataset.tokens.to_table(columns=["revision"])["revision"].to_pylist()
    assert {value: values.count(value) for value in values} == {None: 24, "step0": 24, "step1000": 24}
    assert "step0 (1), step1000 (1)" in " ".join(run_command("info", tmp_path / "out").out.split())


def test_an_estimate_reads_the_cached_config_of_each_revision(cells, tmp_path):
    found = estimate_sweep(cells(), tmp_path, Machine.of(10, 0.5))
    assert [(each.cell.revision, each.prompts, each.tokens) for each in found] == [(step, 6, 24) for step in STEPS]
    assert all(each.bytes and each.seconds and each.unchecked == ("the model (not here)",) for each in found)
    (unknown,) = estimate_sweep(cells(revisions="step9"), tmp_path, Machine.of(10, 0.5))
    assert unknown.bytes is None
    (cell, *_) = cells()
    done = run_command("sweep", cell.config.prompts.parent / "steps.yaml", "--dry-run", "--bandwidth", 9, "--tflops", 1)
    assert all(f"{MODEL} at {step}, prompts" in done.out for step in STEPS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": "demo"}, "demo at step0 on prompts: revision is 'step0', but demo comes with jaxtrace; drop it"),
        ({"models": "."}, "at step0 on prompts: revision is 'step0', but . is a path here; drop it, or give a hub id"),
        ({"revisions": ["step0", "step9"]}, "someone/model at step9 on prompts: someone/model: is no directory here"),
        (
            {"settings": {"random": True}},
            "someone/model at step0 on prompts: revision is 'step0', but random weights are",
        ),
        ({"models": {"model": MODEL, "revision": "step0"}}, "models and revisions both set 'revision'"),
        ({"revisions": []}, "revisions is []; give at least one entry"),
        ({"revisions": [None, "step0"]}, "names no revision; add one, such as 'main'"),
        ({"revisions": {"limit": 3}}, "names no revision; add one, such as 'main'"),
        ({"revisions": [1000]}, "revision is 1000; it must be a valid string"),
        ({"revisions": {"revision": "step0", "name": "first"}}, "revisions: has no setting 'name'"),
    ],
)
def test_mistakes_name_the_revision(cells, tmp_path, fields, message):
    with pytest.raises(JaxtraceError) as error:
        open_sweep(cells(**fields), tmp_path / "out", RecordingWatch())
    assert message in str(error.value) and "\n" not in str(error.value)


def test_studies_compare_revisions_by_the_names_that_were_given(swept):
    traces = {"steps": jt.open(swept[1])}
    compared = patterns(traces, PatternsConfig(by="revision", resamples=100)).tables["conditions"].frame
    assert compared["condition"].tolist() == [*STEPS]
    classified = lens(traces, LensConfig(by="revision", folds=2, neighbours=(1,))).tables["classes"].frame
    assert {*classified["class"]} == {*STEPS}
    assert [*by_model(traces)] == [f"steps at {step}" for step in STEPS]
    assert [*stored_runs(traces)] == [f"{MODEL} at {step}" for step in STEPS]


def test_a_loaded_model_s_traces_have_the_name(swept):
    info = jt.load(MODEL, revision="step1000", mesh=None).info("generate", Settings(Probes.none()))
    trace = Trace([jt.open(swept[1]).rows[0]], info)
    assert row_labels({"it": trace}, "revision")(trace, trace.rows[0]) == "step1000"
    unnamed = Trace(trace.rows, info | {"revision_name": None})
    assert row_labels({"it": unnamed}, "revision")(unnamed, unnamed.rows[0]) == commit_of("step1000")
