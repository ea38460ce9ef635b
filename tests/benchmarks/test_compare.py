"""The benchmark that compares two commits: worktrees, pairs of calls, ratios."""

import argparse
import subprocess

import numpy as np
import pytest

from benchmarks import compare


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one commit, in place of this one, and a function that runs git there."""

    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    for folder in ("jaxtrace", "kernels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("version = 1\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    return tmp_path, git


def test_each_side_has_a_tree_of_its_own_that_is_deleted(repository):
    root, git = repository
    (root / "kernels" / "__init__.py").write_text("version = 2\n")
    for name, version in (("HEAD", "version = 1\n"), (None, "version = 2\n")):
        with compare._worktree(compare._commit(name)) as tree:
            assert (tree / "jaxtrace" / "kernels" / "__init__.py").read_text() == version
        assert not tree.exists()
    assert len(git("worktree", "list").splitlines()) == 1
    assert (root / "kernels" / "__init__.py").read_text() == "version = 2\n" and not git("stash", "list")
    with pytest.raises(SystemExit, match="nowhere"):
        compare._commit("nowhere")


def test_calls_alternate_after_a_warm_up():
    order = []
    calls = [lambda i=i: order.append(i) or (10.0 + i, float(len(order))) for i in (0, 1)]
    assert compare.interleaved(calls, 3, clock=0, first=1) == [10, 11]
    assert order == [0, 1, 1, 0, 0, 1, 1, 0]
    order.clear()
    assert compare.interleaved(calls, 3, clock=1, first=0) == [6, 5]  # medians of 3, 6, 7 and of 4, 5, 8
    assert order == [1, 0, 0, 1, 1, 0, 0, 1]


def test_a_workload_is_slower_if_the_interval_of_its_ratios_lies_above_1(monkeypatch):
    monkeypatch.setattr(compare, "this_machine", lambda: argparse.Namespace(line="machine"))
    ratios = {"same": [0.9, 1.1] * 6, "slower": [1.2, 1.3] * 6, "faster": [0.5, 0.6] * 6}
    seconds = {name: np.stack([np.full(12, 2.0), 2 * np.array(each)], axis=1) for name, each in ratios.items()}
    table = compare._table(("a" * 40, "b" * 40), seconds, argparse.Namespace(shape="15m", pairs=12, clock="wall"))
    verdicts = {row[0]: (row[3], row[-1]) for row in table.rows}
    assert verdicts == {
        "same": ("1.000", "no difference seen"),
        "slower": ("1.250", "slower"),
        "faster": ("0.550", "faster"),
    }
