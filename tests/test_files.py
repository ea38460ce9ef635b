import ast
import errno
import json
import os
from pathlib import Path

import pytest

import jaxtrace
from jaxtrace.errors import ConfigError, StoreError
from jaxtrace.files import (
    MAX_DEPTH,
    atomic_file,
    check_writable,
    claim_directory,
    claim_file,
    decode_json,
    open_regular,
    read_json,
    read_yaml,
    write_atomically,
)


@pytest.mark.parametrize("shared", [False, True])
def test_write_atomically_replaces_the_whole_file(tmp_path, shared):
    file = tmp_path / "a.json"
    write_atomically(file, '{"text": "é"}', shared=shared)
    write_atomically(file, b'{"text": "e"}', shared=shared)
    assert read_json(file) == {"text": "e"}
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


def test_an_output_directory_in_use_is_refused(tmp_path):
    out = tmp_path / "out"

    def claim(**options):
        claim_directory(out, "page.html", ["tables", "*.png"], **options)

    def refused(problem, **options):
        with pytest.raises(StoreError, match=problem):
            claim(**options)

    claim()
    out.mkdir()
    (out / "tables").mkdir()
    (out / "a.png").write_bytes(b"")
    (out / ".page.html.tmp").write_bytes(b"")
    claim()  # empty or unfinished
    (out / "page.html").write_text("page")
    refused(r"out: holds a finished result, page\.html; replace it with --overwrite, or name another directory$")
    refused(r"page\.html; continue it with --resume, replace it with --overwrite, or name", resume=False)
    claim(resume=True)
    claim(overwrite=True)
    (out / "notes.txt").write_text("mine")
    refused(r"out: holds notes\.txt; replace it with --overwrite, or name another directory$")
    refused(r"out: holds notes\.txt; replace it", resume=True)
    claim(overwrite=True)
    out = out / "notes.txt"
    refused("notes.txt: is a file; name a directory", overwrite=True)


def test_an_output_file_in_use_is_refused(tmp_path):
    out = tmp_path / "new" / "labels.jsonl"
    claim_file(out)
    assert not out.parent.exists()
    out.parent.mkdir()
    out.touch()
    claim_file(out)
    out.write_text("labels")
    with pytest.raises(
        StoreError, match=r"labels\.jsonl: exists already; replace it with --overwrite, or name another"
    ):
        claim_file(out)
    claim_file(out, overwrite=True)
    with pytest.raises(StoreError, match="new: is a directory, which is never replaced; name another file"):
        claim_file(out.parent, overwrite=True)


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


def test_read_json_names_file_problem_and_advice(tmp_path):
    with pytest.raises(StoreError, match=r"gone\.json: cannot be read \(No such file or directory\); restore it"):
        read_json(tmp_path / "gone.json", StoreError, "restore it")
    for content, problem in (("{", "not valid JSON"), (json.dumps([1]), "not a JSON object")):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ConfigError, match=rf"a\.json: {problem}.*; give a JSON file"):
            read_json(tmp_path / "a.json")


def test_read_yaml_refuses_what_is_no_mapping(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("seed: 3\n")
    assert read_yaml(file) == {"seed": 3}
    for content, problem in (
        (b"a: [1\n", "not valid YAML"),
        (b"- a\n", "not a YAML mapping"),
        (b"\xff", "cannot be read"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"a\.yaml: {problem}"):
            read_yaml(file)


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_json(tmp_path / "a.json") == read_yaml(tmp_path / "a.yaml") == {"a": 1}


def test_json_may_have_every_level_and_whole_surrogate_pairs():
    value = decode_json("[" * MAX_DEPTH + r'"\ud83d\ude00"' + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH):
        (value,) = value
    assert value == "\U0001f600"
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        decode_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_numbers_that_are_not_finite_are_refused_unless_they_are_expected():
    for text in ("NaN", "-Infinity", "[1e400]"):
        with pytest.raises(ValueError, match=r"is not a JSON value|is beyond the range of a float64"):
            decode_json(text)
    assert decode_json('{"a": [Infinity, 1e400]}', finite=False) == {"a": [float("inf")] * 2}


def test_aliases_and_merges_of_yaml_are_read_and_what_looks_like_a_date_is_a_text(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "b0: &b0 {x: 1}\nb: &b {<<: *b0, z: 2}\nc: {<<: [*b, *b0], y: [*b0]}\n"
        "d: [2024-01-31, 3:0, 1:59.5, 7, 1.5, 0x10, yes, ~, .inf]\n"
    )
    assert read_yaml(file) == {
        "b0": {"x": 1},
        "b": {"x": 1, "z": 2},
        "c": {"x": 1, "z": 2, "y": [{"x": 1}]},
        "d": ["2024-01-31", "3:0", "1:59.5", 7, 1.5, 16, True, None, float("inf")],
    }


def test_a_device_is_not_opened():
    with pytest.raises(OSError, match="Not a regular file"):
        open_regular(Path("/dev/null"))
