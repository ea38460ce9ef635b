import ast
import errno
import os
from pathlib import Path

import pytest

import jaxtrace
from jaxtrace.errors import StoreError
from jaxtrace.files import atomic_file, check_writable, open_regular, write_atomically


@pytest.mark.parametrize("shared", [False, True])
def test_write_atomically_replaces_the_whole_file(tmp_path, shared):
    file = tmp_path / "a.json"
    write_atomically(file, '{"text": "é"}', shared=shared)
    write_atomically(file, b'{"text": "e"}', shared=shared)
    assert file.read_bytes() == b'{"text": "e"}'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_interrupted_write_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.bin"
    write_atomically(file, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(file) as half:
        half.write(b"ne")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_replaced_file_has_the_mode_of_a_new_one(tmp_path):
    file, old = tmp_path / "a.txt", os.umask(0o027)
    try:
        write_atomically(file, "a")
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o640


def test_what_a_kill_left_is_replaced(tmp_path):
    (tmp_path / ".a.txt.tmp").write_text("half")
    write_atomically(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "whole"


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".a.txt.tmp").symlink_to(victim)
    write_atomically(tmp_path / "a.txt", "new")
    assert victim.read_text() == "mine" and (tmp_path / "a.txt").read_text() == "new"


def test_links_directories_and_devices_are_not_replaced(tmp_path):
    for name, target in (("link", tmp_path / "victim"), ("lost", tmp_path / "nowhere"), ("device", Path("/dev/full"))):
        (tmp_path / "victim").write_text("mine")
        (tmp_path / name).symlink_to(target)
        with pytest.raises(StoreError, match=f"{name}: is a symbolic link, which is never replaced; name another file"):
            write_atomically(tmp_path / name, "new")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "folder", "a directory"), (tmp_path / "pipe", "no regular file")):
        with pytest.raises(StoreError, match=f"{path.name}: is {kind}"):
            write_atomically(path, "new")
    with pytest.raises(StoreError, match="/dev/null: is no regular file"):
        write_atomically(Path("/dev/null"), "new")
    assert (tmp_path / "victim").read_text() == "mine" and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
def test_a_failed_write_keeps_the_old_file_and_names_it(tmp_path, monkeypatch, call):
    file = tmp_path / "a.bin"
    write_atomically(file, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif call != "write":
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left on device") as failed, atomic_file(file) as half:
        half.write(b"new")
        if call == "write":
            fail()
    assert failed.value.filename == str(file)
    assert file.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_the_second_of_two_writers_wins_and_the_first_is_told(tmp_path):
    file = tmp_path / "a.txt"
    with pytest.raises(StoreError, match=r"a\.txt: another process is writing it"), atomic_file(file) as first:
        first.write(b"first")
        write_atomically(file, b"second")
    assert file.read_bytes() == b"second" and len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_found_without_a_trace(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "newer")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError) as failed:
        check_writable(tmp_path / "file" / "out")
    assert failed.value.filename == str(tmp_path / "file" / "out")

    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device"):
        check_writable(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Calls that write a file under its final name, and library calls that may write to a file that `atomic_file` opened.
WRITERS = {
    *("write_text", "write_bytes", "touch", "symlink_to", "mkstemp", "NamedTemporaryFile", "save_file", "tofile"),
    *("fdopen", "os.replace", "os.rename", "os.link", "os.symlink", "shutil.copy", "shutil.copy2", "shutil.copyfile"),
    *("shutil.copytree", "shutil.move"),
}
TO_AN_OPEN_FILE = {
    *("savefig", "write_table", "ParquetWriter", ".save", "savez", "savez_compressed", "savetxt", "dump", "safe_dump"),
    *("to_csv", "to_parquet", "to_json", "to_pickle", "to_feather", "to_netcdf", "copyfileobj"),
}
ALLOWED = {
    ("files.py", "fdopen"),  # the one writer
    ("files.py", "O_CREAT"),
    ("cli/estimate.py", "to_parquet"),  # into an open file of `atomic_file`
    ("figures/html.py", "savefig"),  # into memory
    ("studies/_shared/csv.py", "to_csv"),  # into an open file
    ("checkpoints/orbax.py", "save"),  # Orbax writes and renames by itself
}


def writers(node, opened=False):
    """Yield the name of every call that writes a file without `atomic_file`, or `Location.writing`, which uses it."""
    if isinstance(node, ast.With):
        opened = opened or any(names_of(item.context_expr) & {"atomic_file", "writing"} for item in node.items)
    if isinstance(node, ast.Attribute) and node.attr == "O_CREAT":
        yield node.attr
    names = names_of(node)
    if names & WRITERS or ("open" in names and opens_to_write(node)):
        yield min(names, key=len)
    elif names & TO_AN_OPEN_FILE and not opened and (node.args or node.keywords):
        yield min(names, key=len).lstrip(".")
    for child in ast.iter_child_nodes(node):
        yield from writers(child, opened)


def names_of(node):
    """Return the names under which a call's function may be listed: `np.save(…)` as save, .save and np.save."""
    if not isinstance(node, ast.Call):
        return set()
    if isinstance(node.func, ast.Name):
        return {node.func.id}
    return (
        {node.func.attr, f".{node.func.attr}", ast.unparse(node.func)}
        if isinstance(node.func, ast.Attribute)
        else set()
    )


def opens_to_write(call):
    values = [
        value.value
        for value in (*call.args, *(word.value for word in call.keywords))
        if isinstance(value, ast.Constant)
    ]
    return any(
        isinstance(value, str) and value and set(value) <= set("rwxabt+") and set(value) & set("wxa+")
        for value in values
    )


def test_every_file_is_written_atomically():
    root = Path(jaxtrace.__file__).parent
    found = {
        (file.relative_to(root).as_posix(), name)
        for file in root.rglob("*.py")
        for name in writers(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert sorted(found - ALLOWED) == []


@pytest.mark.parametrize(
    "code",
    [
        *("path.write_text(text)", "open(path, 'w')", "path.open('ab')", "np.savez(path, a)", "frame.to_csv(path)"),
        *("figure.savefig(path)", "os.replace(a, b)", "shutil.copyfile(a, b)", "with open(p, mode='x') as f: pass"),
    ],
)
def test_the_rule_finds_other_writers(code):
    assert list(writers(ast.parse(code)))
    assert not list(
        writers(ast.parse("with atomic_file(p) as f:\n    np.savez(f, a)\nwith p.open('rb') as f: f.read()"))
    )


def test_a_device_is_not_opened():
    with pytest.raises(OSError, match="Not a regular file"):
        open_regular(Path("/dev/null"))
