"""Two writers, and runs whose stored rows are not those of their prompts."""

import json
import shutil
import threading

import pytest

from jaxtrace.errors import StoreError
from jaxtrace.files import LOCK
from jaxtrace.lock import WriteLock
from jaxtrace.traces import TraceWriter, open_trace
from jaxtrace.traces.parts import TABLES
from tests.traces.rows import INFO, assert_same_row, make_row


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return tmp_path / "run" if request.param == "local" else f"memory://{tmp_path.name}"


def refused(message, call, *args, **options):
    with pytest.raises(StoreError, match=message) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)


def write(writer, *numbers):
    writer.write([(number, make_row(number, number + 1)) for number in numbers])


def is_complete(directory):
    return json.loads((directory / "run.json").read_text())["complete"]


def test_second_writer_is_refused_and_changes_nothing(root):
    with TraceWriter(root, INFO, prompts=2) as writer:
        write(writer, 0)
        for resume in (False, True):
            refused(rf"{root}: pid \d+ on .* has been writing it since", TraceWriter, root, INFO, resume=resume)
        trace = open_trace(root)
        assert trace.info["complete"] is False and len(trace.rows) == 1
        write(writer, 1)
    assert open_trace(root).info["complete"] is True
    assert TraceWriter(root, INFO, resume=True).done == {0, 1}


def test_runs_of_one_dataset_are_written_at_once_but_each_by_one(root):
    one, other = (TraceWriter(root, INFO, partition=f"model={name}") for name in "ab")
    refused("model=a: pid", TraceWriter, root, INFO, partition="model=a", resume=True)
    write(one, 0)
    write(other, 0)
    assert len(open_trace(root).runs) == 2
    with WriteLock("sweep", one.root.fs, one.root.path):
        refused("model=c: lies in .*, and pid", TraceWriter, root, INFO, partition="model=c")


def test_followers_write_under_the_lock_of_the_leader(tmp_path):
    leader = TraceWriter(tmp_path, INFO, process=0, prompts=2)
    follower = TraceWriter(tmp_path, INFO, process=1, prompts=2)
    write(leader, 0)
    write(follower, 1)
    follower.close()
    refused("pid", TraceWriter, tmp_path, INFO, process=0, resume=True)
    leader.close()
    assert is_complete(tmp_path) and leader.lengths == {0: 1, 1: 2}


def test_writer_in_another_thread_is_refused(tmp_path):
    errors, writer = [], TraceWriter(tmp_path, INFO)

    def second():
        try:
            TraceWriter(tmp_path, INFO, resume=True)
        except StoreError as error:
            errors.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    write(writer, 0)
    assert len(errors) == 1


@pytest.mark.parametrize("failing", [True, False])
def test_run_is_free_after_an_error(tmp_path, failing):
    with pytest.raises(KeyboardInterrupt), TraceWriter(tmp_path, INFO) as writer:
        if failing:
            write(writer, 0)
        raise KeyboardInterrupt
    with pytest.raises(StoreError, match="config is null in the run there and") as error:
        TraceWriter(tmp_path, INFO, {"seed": 1}, resume=True)
    assert error.value
    TraceWriter(tmp_path, INFO, resume=True).close()
    assert not (tmp_path / LOCK).exists()


def test_missing_prompts_leave_a_run_incomplete(tmp_path):
    writer = TraceWriter(tmp_path, INFO, prompts=4)
    write(writer, 0, 2)
    refused(rf"{tmp_path}: 2 of 4 prompts are missing \(number 1, 3\); resume the run", writer.close)
    assert not is_complete(tmp_path)
    write(writer, 1)
    write(writer, 3)
    writer.close()
    assert is_complete(tmp_path) and writer.lengths == {0: 1, 1: 2, 2: 3, 3: 4}


@pytest.mark.parametrize("table", TABLES)
def test_part_deleted_during_a_run_is_missed_and_repeated(tmp_path, table):
    writer = TraceWriter(tmp_path, INFO)
    write(writer, 0, 1)
    write(writer, 2)
    (tmp_path / table / "part-00000.parquet").unlink()
    refused(r"2 of 3 prompts are missing \(number 0, 1\)", writer.close)
    writer.release()
    with TraceWriter(tmp_path, INFO, resume=True, prompts=3) as writer:
        assert writer.done == {2}
        write(writer, 0, 1)
    for number, row in enumerate(open_trace(tmp_path).rows):
        assert_same_row(row, make_row(number, number + 1))


def test_prompts_stored_twice_are_found_and_repaired(tmp_path):
    with TraceWriter(tmp_path, INFO) as writer:
        write(writer, 0, 1)
        write(writer, 2)
    for table in TABLES:
        shutil.copy(tmp_path / table / "part-00000.parquet", tmp_path / table / "part-00005.parquet")
    writer = TraceWriter(tmp_path, INFO, resume=True, prompts=3)
    assert writer.done == {0, 1, 2} and not [*tmp_path.rglob("part-00005*")]
    for table in TABLES:
        shutil.copy(tmp_path / table / "part-00001.parquet", tmp_path / table / "part-00009.parquet")
    refused("part-00009.parquet is damaged, or a copy of another part; resume the run", writer.close)
    write(TraceWriter(tmp_path, INFO, process=1), 2)  # as a second writer that no lock held back
    refused(r"1 of 3 prompts is stored twice \(number 2\)", writer.close)
    assert not is_complete(tmp_path)


@pytest.mark.parametrize("deleted", ["", "tokens", LOCK])
def test_run_deleted_under_its_writer_is_one_line(tmp_path, deleted):
    directory = tmp_path / "run"
    writer = TraceWriter(directory, INFO)
    write(writer, 0)
    if deleted == LOCK:
        (directory / LOCK).unlink()
    else:
        shutil.rmtree(directory / deleted)
    refused("No such file or directory|is gone: the directory was deleted", write, writer, 1)
    refused("1 of 1 prompts is missing|is gone", writer.close)
    assert (directory / "tokens").exists() == (deleted == LOCK)


def test_lock_file_that_a_kill_left_confuses_nobody(tmp_path):
    (tmp_path / LOCK).write_text("")
    with TraceWriter(tmp_path, INFO) as writer:
        write(writer, 0)
    (tmp_path / LOCK).write_text("")
    assert len(open_trace(tmp_path).rows) == 1
    assert TraceWriter(tmp_path, INFO, resume=True).done == {0}
