"""Outputs that exist: one rule for `--out`, and disks that cannot be written."""

import errno
import os
import shutil

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.lock import WriteLock
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.studies._shared.traces import discard_runs
from jaxtrace.traces.trace import Trace
from tests.figures.traces import ALPHAS, row

DIRECTORIES = {
    ("confidence", "train", "TRACE", "--out"): "study.html",
    ("confidence", "apply", "TRACE", "TRACE", "--out"): "tokens.parquet",
    ("study", "dynamics", "TRACE", "--out"): "study.html",
    ("study", "lens", "TRACE", "--by", "kind", "--out"): "study.html",
}
FILES = [
    ("grade", "TRACE", "--out"),
    ("report", "TRACE", "--out"),
    ("estimate", "TRACE", "--estimators", "perplexity", "--out"),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A trace of one answer on disk."""
    directory = tmp_path_factory.mktemp("stored") / "trace"
    answer = row(np.random.default_rng(0), [" a", " b"], layers=2, heads=2, groups=("output",))
    Trace([answer], {"mode": "generate", "model": "tiny", "layers": 2, "heads": 2, "alphas": ALPHAS}).save(directory)
    return directory


@pytest.fixture
def command(jaxtrace, stored):
    """Call a verb with a copy's path in place of TRACE."""
    return lambda words, *more: jaxtrace(*(stored if word == "TRACE" else word for word in words), *more)


def refused(done, *names):
    """Assert that a command was refused in one line that holds some words."""
    assert done.status == 2, done.out + done.err
    *progress, line = done.err.splitlines()
    assert line.startswith("jaxtrace: ") and all(text.startswith("estimating ") for text in progress), done.err
    assert [name for name in names if str(name) not in done.err] == [], done.err


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("words", "last"), DIRECTORIES.items(), ids=lambda value: "-".join(value[:2]))
def test_directories_in_use_are_refused(command, tmp_path, words, last):
    (tmp_path / last).write_text("finished")
    before = content(tmp_path)
    resume = ["continue it with --resume"] * (words[0] == "study")
    refused(command(words, tmp_path), f"{tmp_path}: holds a finished result, {last}", "--overwrite", *resume)
    (tmp_path / last).rename(tmp_path / "thesis.tex")
    refused(command(words, tmp_path), f"{tmp_path}: holds thesis.tex; replace it with --overwrite, or name another")
    refused(command(words, tmp_path / "thesis.tex"), "thesis.tex: is a file; name a directory")
    assert list(content(tmp_path).values()) == list(before.values())


@pytest.mark.parametrize("words", FILES, ids=lambda words: words[0])
def test_files_in_use_are_refused_or_replaced(command, tmp_path, words):
    out = tmp_path / "out"
    assert command(words, out).status == 0
    first = out.read_bytes()
    out.write_text("old")
    refused(command(words, out), f"{out}: exists already; replace it with --overwrite, or name another file")
    assert out.read_text() == "old"
    assert command(words, out, "--overwrite").status == 0
    assert out.read_bytes() == first and [path.name for path in tmp_path.iterdir()] == ["out"]
    out.unlink()
    out.symlink_to(tmp_path / "elsewhere")
    refused(command(words, out, "--overwrite"), f"{out}: is a symbolic link, which is never replaced")
    refused(command(words, "/dev/full", "--overwrite"), "/dev/full: is no regular file")
    assert not (tmp_path / "elsewhere").exists()


def test_the_page_in_the_trace_directory_is_replaced(command, stored):
    for _ in range(2):
        assert command(("report", "TRACE")).status == 0
    refused(
        command(("report", "TRACE", "--out"), stored / "report.html"), "exists already; replace it with --overwrite"
    )
    (stored / "report.html").unlink()


@pytest.mark.parametrize("words", [*DIRECTORIES, *FILES], ids=lambda words: "-".join(words[:2]))
def test_a_full_disk_is_found_before_the_work(command, tmp_path, monkeypatch, words):
    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr("jaxtrace.traces.open_trace", work)
    out = tmp_path / "out"
    refused(command(words, out), "No space left on device; make room on the disk", tmp_path)
    assert not out.exists() and not list(tmp_path.iterdir())


def full_disk(monkeypatch, writes):
    """Let the disk be full after some calls of fsync, which every written file needs."""
    calls, fsync = [], os.fsync

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("words", FILES, ids=lambda words: words[0])
def test_a_disk_that_fills_keeps_the_older_file(command, tmp_path, monkeypatch, words):
    out = tmp_path / "out"
    out.write_text("old")
    full_disk(monkeypatch, writes=1)  # the first is the check before the work
    refused(command(words, out, "--overwrite"), f"{out}: No space left on device; make room on the disk")
    assert out.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_both_flags_contradict(command, tmp_path):
    refused(
        command(("study", "dynamics", "TRACE", "--overwrite", "--resume", "--out"), tmp_path),
        "--overwrite starts again and --resume continues; give one of them",
    )


def test_an_overwritten_study_discards_only_the_traces_of_its_models(stored, tmp_path):
    for name in ("tiny", "other"):
        shutil.copytree(stored, tmp_path / "traces" / name)
    (tmp_path / "traces" / "notes").mkdir()
    discard_runs(StudyConfig(models=("someone/tiny", "someone/notes", "new")), tmp_path)
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == ["notes", "other"]


def test_an_overwritten_study_keeps_a_trace_that_is_being_written(command, stored, tmp_path):
    trace = tmp_path / "traces" / "demo"
    shutil.copytree(stored, trace)
    words = ("study", "dynamics", "--model", "demo", "--task", "lab", "--overwrite", "--out")
    with WriteLock(trace):
        before = content(trace)
        done = command(words, tmp_path)
        assert content(trace) == before
    refused(done, f"{trace}: pid {os.getpid()} on ")


def test_a_trace_is_discarded_again_after_a_kill(stored, tmp_path, monkeypatch):
    trace = tmp_path / "traces" / "tiny"
    shutil.copytree(stored, trace)
    removed = []

    def remove(folder, rmtree=shutil.rmtree):
        if removed:
            raise SystemExit
        removed.append(folder)
        rmtree(folder)

    with monkeypatch.context() as killed, pytest.raises(SystemExit):
        killed.setattr(shutil, "rmtree", remove)
        discard_runs(StudyConfig(models=("tiny",)), tmp_path)
    discard_runs(StudyConfig(models=("tiny",)), tmp_path)
    assert removed and not trace.exists()


@pytest.mark.nightly
def test_a_study_continues_replaces_or_keeps_its_traces(jaxtrace, no_plots, tmp_path):
    def study(limit, *options):
        run = ("--model", "demo", "--task", "lab", "--limit", limit, "--max-new-tokens", 4, "--resamples", 100)
        return jaxtrace("study", "patterns", *run, "--by", "stated", "--out", tmp_path / "out", *options)

    def prompts():
        return len(jt.open(tmp_path / "out" / "traces" / "demo").rows)

    assert study(24).status == 0 and prompts() == 24
    page = tmp_path / "out" / "study.html"
    first = page.read_bytes()
    refused(
        study(24), f"{tmp_path / 'out'}: holds a finished result, study.html; continue it with --resume, replace it"
    )
    page.write_text("old")
    assert study(24, "--resume").status == 0 and page.read_bytes() == first
    page.unlink()
    assert study(24).status == 0 and page.read_bytes() == first
    refused(study(20, "--resume"), "config.limit is 24 in the run there and 20 in this one")
    assert study(20, "--overwrite").status == 0 and prompts() == 20 and page.read_bytes() != first
