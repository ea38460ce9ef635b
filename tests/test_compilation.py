"""Compilations are counted, and compiled programs are kept on disk for the next process."""

import os
import re
import subprocess
import sys
import time

import jax
import pytest

from jaxtrace.compilation import Compilations, counted, use_cache

pytestmark = pytest.mark.slow

TRACE = ("trace", "demo", "--limit", "2", "--max-new-tokens", "2", "--probes", "output")
CACHE = ("JAXTRACE_CACHE", "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "XDG_CACHE_HOME")


@pytest.fixture
def settings():
    """Restore JAX's settings of the cache after the test."""
    names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", None)  # the suite has one, which its workers share
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def unset(monkeypatch, settings):
    for name in CACHE:
        monkeypatch.delenv(name, raising=False)


def test_compilations_in_a_block_are_counted():
    factor = float(time.time_ns() % 10**6)  # such a program is not in the suite's cache yet
    with counted() as count:
        jax.jit(lambda x: x * factor + 1)(2.0)
        inside = count.programs
        assert inside >= 1 and count.cached == 0 and count.seconds > 0
    jax.jit(lambda x: x * factor + 2)(2.0)
    assert count.programs == inside
    assert str(Compilations(4, 2, [(0.0, 4.0), (5.0, 7.12)])) == "compiled 4 programs in 6.1 s (2 from the cache)"
    assert str(Compilations(4, 0, [(1.0, 7.12)])) == "compiled 4 programs in 6.1 s"


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        ({"JAXTRACE_CACHE": "here", "XDG_CACHE_HOME": "there"}, "here"),
        ({"XDG_CACHE_HOME": "there"}, "there/jaxtrace"),
        ({"HOME": "home"}, "home/.cache/jaxtrace"),
    ],
)
def test_the_cache_directory_follows_the_environment(unset, monkeypatch, tmp_path, variables, where):
    for name, folder in variables.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    use_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / where)
    assert (tmp_path / where).is_dir()


def test_a_cache_of_jax_stays_unchanged(unset, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXTRACE_CACHE", str(tmp_path / "ours"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    use_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_cache_if_it_is_off_or_unwritable(unset, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("JAXTRACE_CACHE", str(tmp_path / "file" / "cache"))
    use_cache()
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.setenv("JAXTRACE_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_enable_compilation_cache", False)
    use_cache()
    assert jax.config.jax_compilation_cache_dir is None and not (tmp_path / "cache").exists()


def test_the_second_process_compiles_less(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in CACHE}
    environment |= {"JAX_PLATFORMS": "cpu", "JAXTRACE_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    counts = []
    for run in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-m", "jaxtrace.cli", *TRACE, "--out", str(tmp_path / run)],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert set(re.sub(r"^tracing .*", "", done.stderr, flags=re.MULTILINE).split()) == set()  # nothing but the bar
        line = re.search(r"compiled (\d+) programs in [\d.]+ s(?: \((\d+) from the cache\))?", done.stdout)
        assert line, done.stdout
        counts.append([int(number or 0) for number in line.groups()])
    (programs, cached), (again, hits) = counts
    assert programs == again and cached == 0 and 0 < hits <= programs
    assert list((tmp_path / "cache").glob("*-cache"))
