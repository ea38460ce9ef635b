"""Locks: one writer of a directory at a time, stale locks, object stores."""

import errno
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jaxtrace import lock as lock_module
from jaxtrace.errors import StoreError
from jaxtrace.files import LOCK
from jaxtrace.lock import Holder, WriteLock
from jaxtrace.traces.location import Location

DEAD = 2**31 - 1  # above every system's largest process number


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch):
    monkeypatch.setattr(lock_module, "WAIT_SECONDS", 0.05)


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    if request.param == "local":
        return tmp_path / "runs" / "x"
    MemoryFileSystem.store.clear()
    return "memory://runs/x"


def locked(root):
    place = Location.of(root)
    return WriteLock(root, place.fs, place.path)


def holder(**fields):
    content = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-02T03:04:05Z", "token": "other"}
    return Holder.model_validate(content | fields)


def put(root, **fields):
    """Write the lock file that another program would have left."""
    file = Location.of(root) / LOCK
    file.fs.makedirs(Location.of(root).path, exist_ok=True)
    file.fs.pipe_file(file.path, holder(**fields).model_dump_json().encode())


def refused(message, root):
    with pytest.raises(StoreError, match=message) as error:
        locked(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_second_writer_is_told_who_writes(root):
    with locked(root):
        message = refused("wait for it, end it, or name another directory", root)
        start = re.escape(f"{root}: pid {os.getpid()} on {socket.gethostname()} has been writing it since")
        assert re.match(rf"{start} \d\d:\d\d; ", message)
    with locked(root):
        pass
    assert Location.of(root).names() == []


def test_forgotten_lock_is_free(root):
    locked(root)
    with locked(root):
        pass


def test_of_many_threads_one_gets_the_lock(root):
    outcomes, start = [], threading.Barrier(8)

    def take():
        start.wait()
        try:
            outcomes.append(locked(root))
        except StoreError:
            outcomes.append(None)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8 and sum(outcome is not None for outcome in outcomes) == 1


def test_lock_of_a_killed_process_is_taken_over(root):
    put(root, pid=DEAD, beat=time.time())
    with locked(root) as mine:
        mine.check()


def test_lock_of_this_process_number_in_another_container_is_taken_over():
    MemoryFileSystem.store.clear()
    put("memory://x", beat=time.time())
    locked("memory://x").release()


@pytest.mark.parametrize(("age", "is_stale"), [(1, False), (lock_module.STALE_SECONDS + 1, True)])
def test_lock_object_of_another_host_is_void_without_signs_of_life(age, is_stale):
    MemoryFileSystem.store.clear()
    put("memory://x", host="elsewhere", pid=7, beat=time.time() - age)
    if is_stale:
        locked("memory://x").release()
    else:
        message = refused("^memory://x: pid 7 on elsewhere has been writing it since 2026-01-02 ", "memory://x")
        assert message.endswith(f"; if it has died, delete memory:///x/{LOCK} or wait 120 s")


def test_lock_object_is_renewed_until_it_is_freed(monkeypatch):
    MemoryFileSystem.store.clear()
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.01)
    file = Location.of("memory://x") / LOCK
    with locked("memory://x") as mine:
        first = lock_module._read(file.fs, file.path)
        time.sleep(0.2)
        assert lock_module._read(file.fs, file.path).beat > first.beat
        mine.check()
    time.sleep(0.05)
    assert not file.exists()


class OldStore(MemoryFileSystem):
    """A store that ignores the condition of a creation."""

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value)


class Refusing(MemoryFileSystem):
    """A store that knows no condition."""

    def pipe_file(self, path, value, **kwargs):
        if kwargs:
            raise OSError(errno.ENOSYS, "A header implies functionality that is not implemented")
        super().pipe_file(path, value)


@pytest.mark.parametrize("store", [OldStore, Refusing])
def test_later_of_two_simultaneous_writers_wins_without_conditional_creation(store, monkeypatch):
    """The other program checks before this one writes, and writes after it."""
    MemoryFileSystem.store.clear()
    fs = store()
    monkeypatch.setattr(lock_module, "MemoryFileSystem", ())  # wait as for a store elsewhere
    monkeypatch.setattr(time, "sleep", lambda seconds: put("memory://x", host="elsewhere", pid=7, beat=time.time()))
    with pytest.raises(StoreError, match="memory://x: pid 7 on elsewhere"):
        WriteLock("memory://x", fs, "/x")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    put("memory://x", pid=DEAD, beat=time.time())
    WriteLock("memory://x", fs, "/x").release()


def test_disk_without_flock_gets_a_lock_object(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(lock_module, "_flock", flock)
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.01)
    with locked(tmp_path) as mine:
        mine.check()
        refused(f"if it has died, delete .*{LOCK} or wait 120 s", tmp_path)
    assert not [*tmp_path.iterdir()]


def test_directory_inside_a_locked_one_is_refused(root):
    with locked(root):
        refused(f"inner: lies in .*runs/x, and pid {os.getpid()} on .* has been writing it", f"{root}/tokens/inner")
        assert LOCK in Location.of(root).names() and "tokens" not in Location.of(root).names()
    put(root, pid=DEAD, beat=time.time())
    with locked(f"{root}/tokens/inner"):
        pass


def test_lost_lock_is_noticed(root):
    mine = locked(root)
    file = Location.of(root) / LOCK
    file.fs.rm_file(file.path)
    with pytest.raises(StoreError, match=f"{LOCK} is gone: the directory was deleted, or") as error:
        mine.check()
    assert isinstance(error.value.__cause__, OSError) and "\n" not in str(error.value)
    put(root, host="elsewhere")
    with pytest.raises(StoreError, match="took it over"):
        mine.check()
    mine.release()
    assert file.exists()  # it belongs to another program


def test_directories_made_for_a_lock_are_deleted_unless_they_are_used(tmp_path):
    locked(tmp_path / "a" / "b").release()
    assert not [*tmp_path.iterdir()]
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_damaged_lock_file_is_replaced(tmp_path):
    (tmp_path / LOCK).write_bytes(b"[" * 9999)
    with locked(tmp_path) as mine:
        mine.check()


def test_planted_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / LOCK).symlink_to(tmp_path / "victim")
    refused("name a directory that can be written", tmp_path)
    assert (tmp_path / "victim").read_text() == "mine"


def test_file_is_refused(tmp_path):
    (tmp_path / "x").touch()
    refused("x: is a file; name a directory", tmp_path / "x")
    refused("x/y: Not a directory; name a directory that can be written", tmp_path / "x" / "y")


def test_relative_and_linked_paths_are_one_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("x")
    with WriteLock("x"):
        refused("^link: pid", "link")
        refused("x: pid", tmp_path / "x")
