"""Sweeps that run, resume, fail and are repaired."""

import errno
import json
import shutil

import jax
import pytest

from jaxtrace.checkpoints.embedded import demo_prompts
from jaxtrace.errors import JaxtraceError, StoreError
from jaxtrace.model import Model
from jaxtrace.run import prepare, run_config
from jaxtrace.traces import parts, writer
from tests.sweeping.conftest import SMALL, RecordingWatch
from tests.sweeping.datasets import assert_same_dataset
from tests.traces.rows import INFO


@pytest.fixture(scope="module")
def whole(tmp_path_factory, request):
    """Directory of the dataset of an undisturbed sweep."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    request.addfinalizer(monkeypatch.undo)
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def undisturbed(swept, whole):
    return swept(root=whole)[2]


def test_every_cell_equals_a_single_run(swept, tmp_path):
    watch, manifest, found = swept()
    assert watch.ends == [("greedy", "complete"), ("t0.8", "complete")]
    assert watch.starts == [("greedy", 5, 0), ("t0.8", 5, 0)]
    assert watch.prompts == 10 and sorted(watch.written) == sorted([*range(5)] * 2)
    for (place, record), sampler in zip(manifest.records.items(), ("greedy", "sample"), strict=True):
        heat = {"temperature": 0.8} if sampler == "sample" else {}
        single = prepare(run_config(**SMALL, sampler=sampler, **heat, out=tmp_path / sampler)).trace()
        (rows,) = [found.filter(run=run.keys["run"]).rows for run in found.runs if run.partition == place]
        assert [row.metrics["token"].tolist() for row in rows] == [row.metrics["token"].tolist() for row in single.rows]
        assert [row.prompt.id for row in rows] == [prompt.id for prompt in demo_prompts()[:5]]
        assert (record.rows, record.tokens) == (5, sum(row.length for row in single.rows))
        assert record.tokens_per_second > 0


def test_samples_equal_repeated_prompts(swept):
    tasks = [{"text": "Where does", "samples": 3, "name": "sampled"}, {"text": ["Where does"] * 3}]
    _, _, found = swept(tasks=tasks, samplers={"temperature": 0.8}, settings=SMALL | {"max_new_tokens": 8})
    sampled, repeated = ([*found.filter(task=name).rows] for name in ("sampled", "text"))
    assert [row.prompt.id for row in sampled] == [f"text-0-sample-{i}" for i in range(3)]
    tokens = [row.metrics["token"].tolist() for row in sampled]
    assert tokens == [row.metrics["token"].tolist() for row in repeated]
    assert len({*map(tuple, tokens)}) > 1


def test_complete_sweep_loads_no_model(undisturbed, swept, whole, monkeypatch):
    monkeypatch.setattr(Model, "from_checkpoint", lambda *_, **__: pytest.fail("a model was loaded"))
    watch, _, found = swept(root=whole)
    assert watch.ends == []
    assert_same_dataset(found, undisturbed)


def test_new_cells_are_added_to_a_dataset(undisturbed, swept, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    watch, manifest, found = swept(samplers={"temperature": 0.8}, seeds=[0, 1])
    assert watch.ends == [("t0.8", "complete")]
    assert len(manifest.records) == 3
    assert [run.keys["run"].split("-output")[0] for run in found.runs] == ["greedy", "t0.8-seed0", "t0.8-seed1"]


def test_truncated_and_missing_parts_are_written_again(undisturbed, swept, tmp_path):
    _, _, found = swept()
    truncated, missing = (tmp_path / "out" / "tokens" / run.partition / "part-00001.parquet" for run in found.runs)
    truncated.write_bytes(truncated.read_bytes()[:-100])
    missing.unlink()
    watch, _, found = swept()
    assert [name for name, _, done in watch.starts if done == 3] == ["greedy", "t0.8"]
    assert_same_dataset(found, undisturbed)


def test_sweep_without_its_manifest_finds_complete_cells(undisturbed, swept, tmp_path):
    swept()
    (tmp_path / "out" / "sweep.json").unlink()
    watch, manifest, found = swept()
    assert watch.starts == [("greedy", 5, 5), ("t0.8", 5, 5)] and watch.prompts == 0
    assert [record.rows for record in manifest.records.values()] == [5, 5]
    assert_same_dataset(found, undisturbed)


def test_failed_cell_is_recorded_and_the_next_one_runs(undisturbed, swept, monkeypatch):
    rows = Model.generate_rows

    def failing(model, prompts, settings, *rest):
        batches = rows(model, prompts, settings, *rest)
        yield next(batches)
        if settings.sampler.__class__.__name__ == "Greedy":
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nwhile doing so")
        yield from batches

    monkeypatch.setattr(Model, "generate_rows", failing)
    watch, manifest, _ = swept()
    assert watch.ends == [("greedy", "failed"), ("t0.8", "complete")]
    assert next(iter(manifest.records.values())).error == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    monkeypatch.setattr(Model, "generate_rows", rows)
    watch, manifest, found = swept()
    assert watch.ends == [("greedy", "complete")] and watch.starts[0][2] > 0
    assert next(iter(manifest.records.values())).error is None
    assert_same_dataset(found, undisturbed)


def test_full_disk_ends_a_sweep_and_keeps_complete_cells(undisturbed, swept, tmp_path, monkeypatch):
    write, room = parts.write_part, [13]

    def full(path, table):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, table)

    monkeypatch.setattr(writer, "write_part", full)
    watch = RecordingWatch()
    with pytest.raises(StoreError, match=r"No space left on device; .* make room") as error:
        swept(watch=watch)
    assert "\n" not in str(error.value)
    assert watch.ends == [("greedy", "complete")]
    cells = json.loads((tmp_path / "out" / "sweep.json").read_text())["cells"]
    assert [cell["state"] for cell in cells.values()] == ["complete", "running"]
    monkeypatch.setattr(writer, "write_part", write)
    watch, _, found = swept()
    assert watch.ends == [("t0.8", "complete")] and watch.starts[0][2] > 0
    assert_same_dataset(found, undisturbed)


def test_programs_are_freed_between_models(tmp_path, swept, monkeypatch):
    times = []
    monkeypatch.setattr(jax, "clear_caches", lambda: times.append(0))
    monkeypatch.setattr(Model, "generate_rows", lambda *_: iter(()))
    models = ["demo", {"model": "demo", "name": "again"}, {"model": "demo", "name": "other", "mesh": "data=1"}]
    watch, _, _ = swept(models=models, samplers="greedy")
    assert len(watch.ends) == 3 and len(times) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sweep.json", '{"format": 99, "cells": {}}', "has format 99, but this version reads format 1"),
        ("sweep.json", "[]", "is not a sweep's record"),
        ("notes.txt", "mine", "holds notes.txt and no sweep"),
        ("run.json", "{}", "holds run.json and no sweep"),
    ],
)
def test_directory_of_something_else_is_refused(swept, tmp_path, name, text, message):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(text)
    with pytest.raises(StoreError, match=message) as error:
        swept()
    assert "\n" not in str(error.value)


def test_file_as_dataset_is_refused(swept, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match="is a file; name a directory"):
        swept()


def test_other_prompts_under_the_same_name_are_refused(swept, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "generate_rows", lambda *_: iter(()))
    (tmp_path / "a.txt").write_text("Where does\n")
    swept(tasks={"prompts": str(tmp_path / "a.txt")})
    (tmp_path / "a.txt").write_text("Who does\n")
    with pytest.raises(StoreError, match=r"model=demo/task=a/run=greedy.* was run on other prompts"):
        swept(tasks={"prompts": str(tmp_path / "a.txt")})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"models": ["demo", "./nowhere"], "tasks": {"text": "Where"}},
            "./nowhere on text: ./nowhere: no such directory",
        ),
        ({"tasks": {"prompts": "gone.txt"}}, "demo on gone: gone.txt: No such file"),
        ({"settings": {"mesh": "data=99"}}, "needs 99 devices"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(swept, tmp_path, fields, message):
    with pytest.raises(JaxtraceError) as error:
        swept(**fields)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_dataset_may_be_a_url(swept, undisturbed):
    _, _, found = swept(root="memory://a-sweep")
    assert_same_dataset(found, undisturbed)


def test_sweep_that_runs_refuses_others(swept, tmp_path, monkeypatch):
    """While a sweep runs, the same one, another one, and runs at its place or inside it are refused unread."""
    errors, rows = [], Model.generate_rows

    def others(*arguments):
        monkeypatch.setattr(Model, "generate_rows", rows)
        before = sorted(path for path in (tmp_path / "out").rglob("*"))
        with monkeypatch.context() as patch:
            patch.setattr("jaxtrace.run.open_config_model", lambda _: pytest.fail("a model was opened"))
            patch.setattr("jaxtrace.sweeping.check.open_config_model", lambda _: pytest.fail("a model was opened"))
            for seeds in ([0], [7]):
                with pytest.raises(StoreError) as error:
                    swept(seeds=seeds)
                errors.append(str(error.value))
            for place in ("out", "out/tokens/x"):
                with pytest.raises(StoreError) as error:
                    prepare(run_config(**SMALL, out=tmp_path / place))
                errors.append(str(error.value))
        assert sorted(path for path in (tmp_path / "out").rglob("*")) == before
        return rows(*arguments)

    monkeypatch.setattr(Model, "generate_rows", others)
    watch, _, _ = swept()
    assert [state for _, state in watch.ends] == ["complete", "complete"]
    assert len(errors) == 4 and all("has been writing it since" in error for error in errors)
    assert f"out/tokens/x: lies in {tmp_path / 'out'}, and pid" in errors[3]
    swept()


def test_sweep_is_refused_while_one_of_its_runs_is_written(swept, tmp_path, monkeypatch):
    run = writer.TraceWriter(tmp_path / "out", INFO, partition="model=demo")
    with pytest.raises(StoreError, match=r"out: contains .*/out/runs/model=demo, and pid"):
        swept()
    run.release()


def test_cell_with_missing_rows_fails_and_is_repaired(undisturbed, swept, tmp_path, monkeypatch):
    """A part disappears while its cell runs."""
    rows = Model.generate_rows

    def losing(*arguments):
        for batch in rows(*arguments):
            if parts_written := sorted((tmp_path / "out" / "layers").rglob("run=greedy*/part-00000.parquet")):
                parts_written[0].unlink()
            yield batch

    monkeypatch.setattr(Model, "generate_rows", losing)
    watch, manifest, _ = swept()
    assert watch.ends == [("greedy", "failed"), ("t0.8", "complete")]
    record = next(iter(manifest.records.values()))
    assert "2 of 5 prompts are missing (number 0, 1); resume the run" in record.error and record.rows == 0
    monkeypatch.setattr(Model, "generate_rows", rows)
    watch, _, found = swept()
    assert watch.starts == [("greedy", 5, 3)] and watch.ends == [("greedy", "complete")]
    assert_same_dataset(found, undisturbed)


@pytest.mark.nightly
def test_complete_cell_with_doubled_rows_is_repaired(undisturbed, swept, tmp_path):
    swept()
    for part in [*(tmp_path / "out").rglob("run=greedy*/part-00001.parquet")]:
        shutil.copy(part, part.with_name("part-00007.parquet"))
    watch, _, found = swept()
    assert watch.starts == [("greedy", 5, 5)] and watch.prompts == 0
    assert_same_dataset(found, undisturbed)


def test_sweep_whose_dataset_is_deleted_ends_in_one_line(swept, tmp_path, monkeypatch):
    rows = Model.generate_rows

    def deleting(*arguments):
        shutil.rmtree(tmp_path / "out")
        return rows(*arguments)

    monkeypatch.setattr(Model, "generate_rows", deleting)
    with pytest.raises(StoreError, match=r"out: .* is gone: the directory was deleted") as error:
        swept()
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
