"""`jaxtrace convert`, and one-line refusals of checkpoints that cannot be read exactly."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.checkpoints import orbax
from tests.checkpoints.conftest import CONFIG, Folder


@pytest.fixture
def folder(tmp_path):
    """Checkpoint on disk, for a test to damage."""
    return Folder(tmp_path / "tiny", CONFIG)


@pytest.fixture
def refused(jaxtrace):
    """Assert that a command is refused in one line that holds all of some words."""

    def call(*arguments, names):
        done = jaxtrace(*arguments)
        assert done.status == 2, done.out + done.err
        assert done.err.startswith("jaxtrace: ") and done.err.count("\n") == 1, done.err
        assert [name for name in names if str(name) not in done.err] == [], done.err

    return call


@pytest.mark.nightly
def test_a_converted_checkpoint_gives_the_same_trace(jaxtrace, no_plots, tmp_path):
    out = tmp_path / "out"
    done = jaxtrace("convert", "demo", out, "--dtype", "bfloat16", "--mesh", "data=1")
    assert (done.status, done.err) == (0, "")
    assert done.out == f"{out}: load it by this name, like any checkpoint\n"
    assert json.loads((out / "jaxtrace.json").read_text())["dtype"] == "bfloat16"
    few = ("--text", "Question: What is 3 + 5? Answer:", "--max-new-tokens", 4, "--probes", "output")
    assert jaxtrace("trace", "demo", *few, "--out", tmp_path / "one").status == 0
    assert jaxtrace("trace", out, *few, "--out", tmp_path / "two").status == 0
    (one,), (two,) = (jt.open(tmp_path / name).rows for name in ("one", "two"))
    assert one.text == two.text
    for name, values in one.metrics.items():
        np.testing.assert_array_equal(values, two.metrics[name], err_msg=name)
    # The weights are equal bit for bit, so that a run with one checkpoint resumes with the other.
    hashes = [json.loads((tmp_path / name / "run.json").read_text())["info"]["checkpoint"] for name in ("one", "two")]
    assert hashes[0] == hashes[1]


@pytest.mark.nightly
def test_relative_paths_work(jaxtrace, no_plots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = jaxtrace("convert", "demo", "rel")
    assert (done.status, done.out, done.err) == (0, "rel: load it by this name, like any checkpoint\n", "")
    few = ("--text", "Question: What is 3 + 5? Answer:", "--max-new-tokens", 2, "--probes", "output")
    assert jaxtrace("trace", "rel", *few, "--out", "run").status == 0
    assert len(jt.open(tmp_path / "run").rows) == 1
    assert jaxtrace("convert", "rel", "again").status == 0
    one, two = (jt.load(name).params for name in ("demo", "again"))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_wrong_arguments_are_refused(refused, jaxtrace, folder, tmp_path):
    refused("convert", "nowhere", tmp_path / "out", names=["nowhere: no such directory"])
    refused("convert", folder.write(), tmp_path, names=[tmp_path, "holds files that are no conversion", "name a new"])
    refused("convert", folder.path, tmp_path / "out", "--dtype", "int8", names=["dtype 'int8'", "choose float32"])
    refused("convert", folder.path, tmp_path / "out", "--mesh", "model", names=["mesh 'model'", "write it like"])
    refused("convert", folder.path, tmp_path / "out", "--mesh", "data=99", names=["mesh 'data=99': needs 99 devices"])
    assert not (tmp_path / "out").exists()
    assert jaxtrace("convert", folder.path, tmp_path / "out").status == 0
    names = [tmp_path / "out", "holds the conversion of", "with dtype as stored", "name another directory"]
    refused("convert", folder.path, tmp_path / "out", "--dtype", "float16", names=names)


def test_an_interrupted_conversion_resumes(jaxtrace, monkeypatch, folder, tmp_path, refused):
    def write_part(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(orbax, "write_part", write_part)
        done = jaxtrace("convert", folder.write(), tmp_path / "out")
    assert (done.status, done.err) == (130, "jaxtrace: interrupted; run the same command again to resume\n")
    refused("info", tmp_path / "out", names=[tmp_path / "out", "half-written; run the same jaxtrace convert again"])
    assert jaxtrace("convert", folder.path, tmp_path / "out").status == 0
    assert jaxtrace("info", tmp_path / "out").status == 0


@pytest.mark.slow
@pytest.mark.nightly
def test_ctrl_c_ends_a_conversion_in_one_line(tmp_path):
    """A process of its own, interrupted while Orbax's threads write."""
    folder, out = Folder(tmp_path / "tiny", CONFIG | {"num_hidden_layers": 200}), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxtrace.cli", "convert", folder.write(), str(out)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    try:
        until = time.monotonic() + 60
        while not (out / "params.partial_save").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert errors == "jaxtrace: interrupted; run the same command again to resume\n"


def quantised(folder):
    folder.config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return "is quantised (bitsandbytes)"


def eight_bit(folder):
    folder.weights["model.norm.weight"] = folder.weights["model.norm.weight"].astype(np.int8)
    return "is quantised (model.norm.weight, stored as I8)"


def unknown(folder):
    folder.config["model_type"] = "mamba"
    return "its architecture 'mamba' is not supported"


def heads(folder):
    folder.config["num_attention_heads"] = 3
    return "which is not a multiple of 3 attention heads"


def a_shape(folder):
    folder.weights["model.norm.weight"] = np.zeros(9, np.float32)
    return "model.norm.weight has shape [9], not [8]"


@pytest.mark.parametrize("damage", [quantised, eight_bit, unknown, heads, a_shape], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("verb", ["convert", "trace"])
def test_checkpoints_that_do_not_fit_their_config_are_refused(refused, folder, tmp_path, damage, verb):
    words = damage(folder)
    options = ("--out", tmp_path / "out", "--prompts", tmp_path / "p.jsonl") if verb == "trace" else (tmp_path / "out",)
    (tmp_path / "p.jsonl").write_text('{"tokens": [1, 2]}\n')
    refused(verb, folder.write(), *options, names=[folder.path, words])
    assert not (tmp_path / "out").exists()


def truncated(folder):
    file = folder.path / "one.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return "one.safetensors: not a readable safetensors file"


def a_missing_shard(folder):
    (folder.path / "two.safetensors").unlink()
    return "shard two.safetensors of the index is missing"


def a_missing_tensor(folder):
    folder.write_index(dict.fromkeys(folder.weights, "one.safetensors"))
    return "not in one.safetensors: "


@pytest.mark.parametrize("damage", [truncated, a_missing_shard, a_missing_tensor], ids=lambda damage: damage.__name__)
def test_damaged_files_are_refused(refused, folder, tmp_path, damage):
    folder.write_sharded()
    words = damage(folder)
    refused("convert", folder.path, tmp_path / "out", names=[folder.path, words])
    assert not (tmp_path / "out").exists()
