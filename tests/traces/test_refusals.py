"""Errors of reading and writing: one line with the file, the problem and the advice."""

import errno
import json
import os

import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import StoreError
from jaxtrace.traces import TraceWriter, open_trace
from jaxtrace.traces.parts import TABLES
from tests.traces.rows import INFO, make_row, make_trace


def refused(message, call, *args, **options):
    with pytest.raises(StoreError, match=message) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)


@pytest.fixture
def stored(tmp_path):
    make_trace().save(tmp_path / "run")
    return tmp_path / "run"


def test_directory_with_a_run_is_refused(stored):
    refused("already holds a run; resume it, or name another", TraceWriter, stored, INFO)
    refused("already holds a run", make_trace().save, stored)


def test_directory_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        refused("holds files that are no trace; name an empty", TraceWriter, tmp_path, INFO, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_path_of_a_file_is_refused(tmp_path):
    path = tmp_path / "run"
    path.write_text("")
    refused("run: is a file; name a directory", TraceWriter, path, INFO)
    refused("run/a/b: Not a directory; name a directory that", TraceWriter, path / "a" / "b", INFO)
    refused("run: not a trace directory, it has no run.json", open_trace, path)


def test_missing_permission_is_explained(tmp_path, monkeypatch):
    def makedirs(path, *args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("os.makedirs", makedirs)
    refused("run: Permission denied; name a directory that can be written", TraceWriter, tmp_path / "run", INFO)


@pytest.mark.parametrize("failing", ["tokens", "layers", "prompts"])
def test_full_disk_keeps_the_finished_parts(tmp_path, monkeypatch, failing):
    writer = TraceWriter(tmp_path, INFO)
    writer.write([(0, make_row(0, 3))])
    write_completely = pq.write_table

    opened = iter(TABLES)

    def write_table(table, file, **options):
        if next(opened) == failing:
            file.write(b"PAR1")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_completely(table, file, **options)

    monkeypatch.setattr(pq, "write_table", write_table)
    refused("No space left on device; the parts already finished stay readable", writer.write, [(1, make_row(1, 3))])
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(open_trace(tmp_path).rows) == 1
    writer.write([(1, make_row(1, 3))])
    assert len(open_trace(tmp_path).rows) == 2


def test_full_disk_at_the_end_leaves_the_run_incomplete(tmp_path, monkeypatch):
    def replace(path, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    writer = TraceWriter(tmp_path, INFO)
    monkeypatch.setattr("pathlib.Path.replace", replace)
    refused("No space left on device; the parts", writer.close)
    assert open_trace(tmp_path).info["complete"] is False


def test_opening_no_trace_directory_is_refused(tmp_path):
    refused("not a trace directory, it has no run.json; name one that does", open_trace, tmp_path)
    refused("not a trace directory", open_trace, tmp_path / "gone")
    (tmp_path / "run.json").mkdir()
    refused("run.json: Is a directory; make it readable", open_trace, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '"format"', '{"format": 1}', "\udcff"])
def test_damaged_run_json_is_refused(stored, text):
    (stored / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    refused("run.json: not a description of a run; restore it", open_trace, stored)
    refused("run.json: not a description of a run", TraceWriter, stored, INFO, resume=True)


def test_unknown_format_is_refused(stored):
    run = json.loads((stored / "run.json").read_text(encoding="utf-8")) | {"format": 3}
    (stored / "run.json").write_text(json.dumps(run))
    refused("has format 3, and this version reads formats 1 to 2; open it with", open_trace, stored)


@pytest.mark.parametrize("table", ["tokens", "layers", "prompts"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_damaged_part_is_refused_on_access(stored, table, damage):
    path = stored / table / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        column = pq.read_metadata(path).row_group(0).column(1)
        data[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "flipped": data}[damage])
    trace = open_trace(stored)
    refused(f"{table}/part-00000.parquet: cannot be read .*; restore it, or delete part-00000", lambda: trace.rows[0])
    if table == "prompts" and damage != "flipped":
        refused("prompts/part-00000.parquet: cannot be read", lambda: trace.texts)


def test_unknown_file_system_is_refused():
    message = "nowhere://bucket/study: .*; name a local directory or a URL that fsspec knows"
    refused(message, TraceWriter, "nowhere://bucket/study", INFO)
    refused(message, open_trace, "nowhere://bucket/study")


def test_unknown_precision_is_refused(tmp_path):
    refused(
        "precision 'float8' is unknown; give one of: float32, float16", TraceWriter, tmp_path, INFO, precision="float8"
    )


def test_single_run_and_dataset_do_not_mix(stored, tmp_path):
    refused("run: holds one run, not a dataset of several", TraceWriter, stored, INFO, partition="model=a")
    TraceWriter(tmp_path / "study", INFO, partition="model=a")
    refused("study: holds files that are no trace", TraceWriter, tmp_path / "study", INFO, resume=True)


def test_partition_with_a_run_or_other_files_is_refused(tmp_path):
    TraceWriter(tmp_path, INFO, partition="model=a")
    refused("runs/model=a: already holds a run; resume it", TraceWriter, tmp_path, INFO, partition="model=a")
    (tmp_path / "tokens" / "model=b").mkdir()
    (tmp_path / "tokens" / "model=b" / "part-00000.parquet").write_bytes(b"")
    refused("holds files that are no trace", TraceWriter, tmp_path, INFO, partition="model=b", resume=True)
