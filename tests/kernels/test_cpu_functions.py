"""Functions in C++: compiled once, unavailable without a compiler, and equal to XLA's on rows of every kind."""

import shutil
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import Unsupported, cpu_functions, unembed_moments
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from jaxtrace.kernels.unembed_moments.api import OPERATION as UNEMBED

LOGITS = jnp.zeros((2, 3))
OPTIONS = {"alphas": (), "temperature": None}
compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """The module as a new process has it, with a cache of its own; nothing is registered."""
    monkeypatch.setattr(cpu_functions, "_load", cpu_functions._load.__wrapped__)
    monkeypatch.setattr(jax.ffi, "register_ffi_target", lambda name, capsule, platform: None)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def fake_compiler(folder, monkeypatch, text):
    file = folder / "compiler"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(file))


def test_without_a_compiler_xla_serves_the_call(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert SOFTMAX.choose(None, LOGITS, **OPTIONS) is SOFTMAX.implementations["xla"]
    with pytest.raises(Unsupported, match="cpu: needs a C\\+\\+ compiler"):
        SOFTMAX.choose("cpu", LOGITS, **OPTIONS)


def test_a_compiler_that_fails_is_quoted_and_leaves_no_file(fresh, monkeypatch):
    fake_compiler(fresh, monkeypatch, "echo no such header >&2; exit 3")
    assert "fails: no such header" in cpu_functions.refuses()
    fake_compiler(fresh, monkeypatch, "exit 0")
    assert "cannot be compiled" in cpu_functions.refuses()
    assert [file.name for file in fresh.iterdir()] == ["compiler"]


@compiler
def test_a_damaged_library_is_compiled_again_and_a_sound_one_is_not(fresh, monkeypatch):
    library = fresh / f"{cpu_functions._target()}.so"
    library.write_bytes(b"cut")
    assert cpu_functions.refuses() is None and library.stat().st_size > 1000
    fake_compiler(fresh, monkeypatch, "exit 3")
    sound = library.rename(fresh / f"{cpu_functions._target()}-sound.so")
    monkeypatch.setattr(cpu_functions, "_target", lambda: sound.stem)
    assert cpu_functions.refuses() is None


def test_a_mesh_that_xla_partitions_keeps_xlas_own_operations():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        assert UNEMBED.choose(None, LOGITS[None], LOGITS) is UNEMBED.implementations["xla"]


@compiler
@pytest.mark.parametrize("vocabulary", [1, 15, 256, 300])
def test_rows_of_every_kind_have_the_sums_of_xla(rng, vocabulary):
    values = np.array(rng.normal(size=(4, 9, 8)), np.float32)
    values[..., 0] = abs(values[..., 0])
    values[:, 1, 0], values[2, 2], values[-1, 3, 0], values[0, 4] = np.nan, np.inf, np.nan, 300.0
    values[1, 5, 0] = values[-1, 6, 0] = -1  # rows that have a token which the others lack
    unembedding = np.array(rng.normal(size=(vocabulary, 8)), np.float32)
    unembedding[vocabulary // 3] = [-1e31, *[0] * 7]
    targets = jnp.asarray(rng.integers(-1, vocabulary + 1, 9), jnp.int32)
    options = {"alphas": (0.0, 0.25, 1.0, np.inf), "keep_logits": True, "targets": targets}
    got, want = (
        unembed_moments(jnp.asarray(values), jnp.asarray(unembedding), implementation=name, **options)
        for name in ("cpu", "xla")
    )
    broken = jnp.isnan(want.moments.l)  # of such a row XLA's maximum and its place are any
    assert broken.sum() == 6
    for x, y in zip(*(jax.tree.leaves_with_path(each) for each in (got, want)), strict=True):
        name = jax.tree_util.keystr(x[0])
        x, y = (jnp.where(broken, 0, z[1]) if name in (".moments.m", ".top1") else z[1] for z in (x, y))
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5, err_msg=name)


@compiler
def test_a_row_has_the_same_bits_among_any_others(rng):
    logits = jnp.asarray(rng.normal(size=(7, 3001)) * 4, jnp.float32)
    whole = SOFTMAX(logits, implementation="cpu", **(OPTIONS | {"alphas": (0.0, 0.5)}))
    for i in range(7):
        alone = SOFTMAX(logits[i : i + 1], implementation="cpu", **(OPTIONS | {"alphas": (0.0, 0.5)}))
        assert jax.tree.all(jax.tree.map(lambda x, y, i=i: (x[i : i + 1] == y).all(), whole, alone))
