"""Interrupted runs keep their finished parts and resume from them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import StoreError
from jaxtrace.traces import TraceWriter, open_trace
from tests.traces.rows import INFO, assert_same_row, make_row

CONFIG = {"model": "tiny", "sampler": {"seed": 1, "temperature": 0.7}, "limit": None}


@pytest.fixture
def cut_off(tmp_path):
    """Create a run of two complete parts, and a third part as a kill leaves it."""
    directory = tmp_path / "run"
    writer = TraceWriter(directory, INFO, CONFIG)
    for start in (0, 2, 4):
        writer.write([(start, make_row(start, 3)), (start + 1, make_row(start + 1, 2))])
    (directory / "prompts" / "part-00002.parquet").unlink()
    (directory / "layers" / "part-00002.parquet").rename(directory / "layers" / ".part-00002.parquet.tmp")
    (directory / "prompts" / ".part-00002.parquet.tmp").write_bytes(b"PAR1")
    return directory


def test_interrupted_run_opens_with_its_finished_rows(cut_off):
    trace = open_trace(cut_off)
    assert trace.info["complete"] is False
    for i, row in enumerate(trace.rows):
        assert_same_row(row, make_row(i, 3 - i % 2))
    assert len(trace.rows) == 4


def test_resume_deletes_partial_parts_and_continues(cut_off):
    created = json.loads((cut_off / "run.json").read_text(encoding="utf-8"))["created"]
    with TraceWriter(cut_off, INFO | {"version": "newer"}, CONFIG, resume=True) as writer:
        assert writer.done == {0, 1, 2, 3}
        assert sorted(path.name for path in (cut_off / "tokens").iterdir()) == [
            "part-00000.parquet",
            "part-00001.parquet",
        ]
        assert not list(cut_off.rglob("*.tmp"))
        writer.write([(4, make_row(4, 3))])
    trace = open_trace(cut_off)
    assert trace.info == INFO | {"complete": True}
    assert [row.length for row in trace.rows] == [3, 2, 3, 2, 3]
    assert (cut_off / "tokens" / "part-00002.parquet").exists()
    assert json.loads((cut_off / "run.json").read_text(encoding="utf-8"))["created"] == created


def test_resume_repeats_a_deleted_part(cut_off):
    for table in ("tokens", "layers", "prompts"):
        (cut_off / table / "part-00000.parquet").unlink()
    with TraceWriter(cut_off, INFO, CONFIG, resume=True) as writer:
        assert writer.done == {2, 3}
        writer.write([(0, make_row(0, 3)), (1, make_row(1, 2))])
    assert [row.length for row in open_trace(cut_off).rows] == [3, 2, 3, 2]


def test_complete_run_is_incomplete_while_it_is_resumed(tmp_path):
    for _ in range(2):
        with TraceWriter(tmp_path, INFO, CONFIG, resume=True) as writer:
            assert open_trace(tmp_path).info["complete"] is False
            writer.write([(len(writer.done), make_row(len(writer.done), 2))])
        assert open_trace(tmp_path).info["complete"] is True
    assert len(open_trace(tmp_path).rows) == 2


def test_resume_without_a_run_starts_one(tmp_path):
    (tmp_path / ".run.json.tmp").write_bytes(b"{")
    with TraceWriter(tmp_path, INFO, CONFIG, resume=True) as writer:
        assert writer.done == set()
    assert open_trace(tmp_path).info["complete"] is True


def test_interrupted_writer_leaves_the_run_incomplete(tmp_path):
    with pytest.raises(KeyboardInterrupt), TraceWriter(tmp_path, INFO) as writer:
        writer.write([(0, make_row(0, 3))])
        raise KeyboardInterrupt
    trace = open_trace(tmp_path)
    assert trace.info["complete"] is False and len(trace.rows) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            CONFIG | {"sampler": {"seed": 2, "temperature": 0.5}},
            "config.sampler.seed is 1 in the run there and 2",
        ),
        (CONFIG | {"limit": 3}, "config.limit is null in the run there and 3 in"),
        (CONFIG | {"prompt": "x" * 99}, 'config.prompt is null in the run there and "x{56}… in'),
        ({"model": "tiny"}, "config.sampler is .* in the run there and null"),
        (None, "config is .* in the run there and null"),
    ],
)
def test_resume_under_another_configuration_is_refused(cut_off, config, message):
    with pytest.raises(StoreError, match=message) as error:
        TraceWriter(cut_off, INFO, config, resume=True)
    assert "\n" not in str(error.value)
    assert len(list(cut_off.rglob("*.tmp"))) == 2


def test_resume_with_other_columns_is_refused(cut_off):
    with pytest.raises(StoreError, match=r"info.alphas is \[0.5, .*\] in the run there and \[2.0\] in"):
        TraceWriter(cut_off, INFO | {"alphas": [2.0]}, CONFIG, resume=True)


@pytest.mark.parametrize("table", ["tokens", "layers", "prompts"])
def test_resume_repeats_a_truncated_part(cut_off, table):
    path = cut_off / table / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with TraceWriter(cut_off, INFO, CONFIG, resume=True) as writer:
        assert writer.done == {2, 3}
        assert [path.name for path in sorted((cut_off / table).iterdir())] == ["part-00001.parquet"]
        writer.write([(0, make_row(0, 3)), (1, make_row(1, 2))])
    for i, row in enumerate(open_trace(cut_off).rows):
        assert_same_row(row, make_row(i, 3 - i % 2))


@pytest.mark.parametrize("table", ["tokens", "layers"])
def test_resume_repeats_a_part_whose_tables_disagree(cut_off, table):
    path = cut_off / table / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert TraceWriter(cut_off, INFO, CONFIG, resume=True).done == {2, 3}


def test_each_process_writes_its_own_parts(tmp_path):
    writers = [TraceWriter(tmp_path, INFO, process=process) for process in range(2)]
    for number in range(4):
        writers[number % 2].write([(number, make_row(number, 2))])
    writers[1].close()
    assert open_trace(tmp_path).info["complete"] is False
    writers[0].close()
    assert sorted(path.name for path in (tmp_path / "tokens").iterdir()) == [
        f"part-{process:03d}-{part:05d}.parquet" for process in range(2) for part in range(2)
    ]
    trace = open_trace(tmp_path)
    assert trace.info["complete"] is True
    for number, row in enumerate(trace.rows):
        assert_same_row(row, make_row(number, 2))
    again = TraceWriter(tmp_path, INFO, resume=True)
    assert again.done == {0, 1, 2, 3}
    again.write([(4, make_row(4, 2))])
    assert len(open_trace(tmp_path).rows) == 5


def test_configuration_with_tuples_and_infinity_resumes(tmp_path):
    config = {"alphas": (0.5, float("inf"))}
    TraceWriter(tmp_path, INFO, config)
    assert TraceWriter(tmp_path, INFO, config, resume=True).done == set()


def test_kill_while_writing_keeps_the_finished_parts(tmp_path):
    """Kill a process in the middle of its third part."""
    code = f"""
import os, signal
import pyarrow.parquet as pq
from jaxtrace.traces import TraceWriter
from tests.traces.rows import INFO, make_row
writer = TraceWriter({str(tmp_path)!r}, INFO)
writer.write([(0, make_row(0, 3))])
writer.write([(1, make_row(1, 3))])
write_completely, calls = pq.write_table, []
def write_table(table, file, **options):
    calls.append(0)
    if len(calls) == 2:
        file.write(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)
    write_completely(table, file, **options)
pq.write_table = write_table
writer.write([(2, make_row(2, 3))])
"""
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "tokens" / "part-00002.parquet").exists()
    assert len(open_trace(tmp_path).rows) == 2
    assert TraceWriter(tmp_path, INFO, resume=True).done == {0, 1}
    assert pq.read_table(tmp_path / "layers").num_rows == 2 * 3 * 4
