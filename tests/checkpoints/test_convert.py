"""Converted checkpoints: the same bits by another way, and a directory that is whole or says that it is not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

import jaxtrace
from jaxtrace import CheckpointError, ConfigError
from jaxtrace.checkpoints import convert as converting
from jaxtrace.checkpoints import saved
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from tests.checkpoints.conftest import CONFIG, GEMMA2, GPT2, Folder

PROMPTS = [[1, 5, 3], [2, 2, 7, 8]]
STORED = {
    "float32": (np.float32,),
    "bfloat16": (ml_dtypes.bfloat16,),
    "mixed": (np.float16, ml_dtypes.bfloat16, np.float32),
}


def same_traces(one, other, **how):
    """Bit for bit, every metric."""
    traces = [jaxtrace.load(str(name), **how).generate(PROMPTS, max_new_tokens=4) for name in (one, other)]
    for a, b in zip(*(trace.rows for trace in traces), strict=True):
        assert set(a.metrics) == set(b.metrics)
        for name, values in a.metrics.items():
            np.testing.assert_array_equal(values, b.metrics[name], err_msg=name)


def same_parameters(one, other):
    """Bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.sharding) == (b.dtype, b.sharding)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def same_as(source, out):
    same_parameters(open_checkpoint(str(source)).read(), open_checkpoint(str(out)).read())


def stored_as(folder, kinds):
    for i, name in enumerate(sorted(folder.weights)):
        folder.weights[name] = folder.weights[name].astype(kinds[i % len(kinds)])
    return folder


TIED = CONFIG | {"tie_word_embeddings": True}
CONFIGS = {"untied": CONFIG, "tied": TIED, "two kinds of layers": GEMMA2, "fused": GPT2}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_are_those_of_the_source(folder_of, tmp_path, config, stored):
    source = open_checkpoint(stored_as(folder_of(CONFIGS[config]), STORED[stored]).write_sharded())
    convert(source, tmp_path / "out")
    converted = open_checkpoint(str(tmp_path / "out"))
    for dtype, stacked in (("float32", False), ("bfloat16", True)):
        same_parameters(*(checkpoint.read(dtype, stacked=stacked) for checkpoint in (source, converted)))


@pytest.mark.parametrize("stacked", [False, True], ids=["unrolled", "stacked"])
@pytest.mark.parametrize(("config", "stored"), [("tied", "bfloat16"), ("untied", "mixed")])
def test_traces_are_those_of_the_source(folder_of, tmp_path, config, stored, stacked):
    source = stored_as(folder_of(CONFIGS[config]), STORED[stored]).write_sharded()
    convert(open_checkpoint(source), tmp_path / "out")
    same_traces(source, tmp_path / "out", stacked=stacked, dtype="bfloat16" if stored == "bfloat16" else "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", STORED)
def test_rounding_is_that_of_a_load(folder, tmp_path, stored, dtype):
    source = open_checkpoint(stored_as(folder, STORED[stored]).write())
    convert(source, tmp_path / "out", dtype=dtype)
    converted = open_checkpoint(str(tmp_path / "out"))
    same_parameters(source.read(dtype), converted.read(dtype))


def test_the_fingerprint_is_that_of_the_source_unless_numbers_were_rounded(folder, tmp_path):
    source = open_checkpoint(stored_as(folder, STORED["bfloat16"]).write())
    found = {}
    for dtype in (None, "bfloat16", "float32", "float16"):
        convert(source, tmp_path / str(dtype), dtype=dtype)
        found[dtype] = open_checkpoint(str(tmp_path / str(dtype))).fingerprint()
    assert found[None] == found["bfloat16"] == found["float32"] == source.fingerprint() != found["float16"]
    config = tmp_path / "None" / "config.json"
    config.write_text(config.read_text().replace("1e-05", "1e-06"))
    assert open_checkpoint(str(tmp_path / "None")).fingerprint() != source.fingerprint()


def test_a_conversion_of_a_conversion(folder, tmp_path):
    source = stored_as(folder, STORED["mixed"]).write_sharded()
    convert(open_checkpoint(source), tmp_path / "one")
    convert(open_checkpoint(str(tmp_path / "one")), tmp_path / "two")
    same_as(source, tmp_path / "two")
    assert len({open_checkpoint(str(x)).fingerprint() for x in (source, tmp_path / "one", tmp_path / "two")}) == 1


def test_what_lies_in_the_directory(folder, tmp_path):
    source = stored_as(folder, STORED["bfloat16"]).write_sharded()
    (folder.path / "generation_config.json").write_text('{"eos_token_id": 7}')
    (folder.path / "notes.txt").write_text("mine")
    convert(open_checkpoint(source), tmp_path / "out")
    names = ["config.json", "generation_config.json", "jaxtrace.json", "params"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    said = json.loads((tmp_path / "out" / "jaxtrace.json").read_text())
    assert said["source"] == source and said["dtype"] == "as stored"
    assert said["fingerprint"] == open_checkpoint(source).fingerprint()
    assert open_checkpoint(str(tmp_path / "out")).stop_tokens == (2, 7)
    with pytest.warns(UserWarning, match="Sharding info not provided"):
        plain = ocp.load(str(tmp_path / "out" / "params"))
    q = jaxtrace.load(source, dtype="bfloat16").params["layers"][1]["attention"]["q"]
    np.testing.assert_array_equal(np.asarray(plain["layers"]["1"]["attention"]["q"]), np.asarray(q))


def test_progress_counts_bytes(folder, tmp_path):
    said = []
    convert(open_checkpoint(folder.write()), tmp_path / "out", on_progress=lambda *counts: said.append(counts))
    total = sum(values.nbytes for values in folder.weights.values())
    assert said == sorted(said) and said[-1] == (total, total) and {total for _, total in said} == {total}


@pytest.mark.parametrize("done", range(6))
def test_an_interrupted_conversion_goes_on(folder, tmp_path, monkeypatch, done):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    written = []

    def write_part(*arguments, whole=saved.write_part):
        if len(written) == done:
            raise KeyboardInterrupt
        written.append(arguments[1])
        whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(saved, "write_part", write_part)
        if done < 5:
            with pytest.raises(KeyboardInterrupt):
                convert(source, out)
        else:
            patch.setattr(saved, "finish", interrupted)
            with pytest.raises(KeyboardInterrupt):
                convert(source, out)
    with pytest.raises(CheckpointError, match="half-written; run the same jaxtrace convert again"):
        jaxtrace.load(str(out))
    rest = []
    monkeypatch.setattr(saved, "write_part", lambda *a, whole=saved.write_part: (rest.append(a[1]), whole(*a)))
    convert(source, out)
    assert len(rest) == (5 if done == 5 else 5 - done)  # joining cannot be gone on with
    same_as(folder.path, out)


def interrupted(*_):
    raise KeyboardInterrupt


def test_interrupted_before_the_last_word(folder, tmp_path, monkeypatch):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(
            converting,
            "_replace",
            lambda path, content, whole=converting._replace: (
                interrupted() if path.name == "jaxtrace.json" else whole(path, content)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            convert(source, out)
    with pytest.raises(CheckpointError, match="half-written"):
        jaxtrace.load(str(out))
    monkeypatch.setattr(saved, "write_part", interrupted)
    convert(source, out)
    same_as(folder.path, out)


@pytest.mark.slow
def test_a_killed_process(tmp_path):
    """kill -9 at several moments, then the same command again."""
    config = CONFIG | {"num_hidden_layers": 40}
    folder = Folder(tmp_path / "tiny", config)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jaxtrace.cli", "convert", folder.write(), str(out)]
    for moment in (0.0, 0.4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"JAX_PLATFORMS": "cpu"})
        until = time.monotonic() + 60
        while not (out / "params.partial_save").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        time.sleep(moment)
        assert process.poll() is None, "finished before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(CheckpointError, match="half-written"):
            jaxtrace.load(str(out))
    convert(open_checkpoint(str(folder.path)), out)
    same_as(folder.path, out)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "jaxtrace.json", "params"]


def refused(checkpoint, out, *parts, error=CheckpointError, **options):
    """Converting fails in one line and changes nothing."""
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(error) as caught:
        convert(checkpoint, out, **options)
    message = str(caught.value)
    assert "\n" not in message and not [part for part in parts if str(part) not in message], message
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_conversion_is_refused(folder, tmp_path, monkeypatch, finished):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    if finished:
        convert(source, out)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(saved, "finish", interrupted)
            convert(source, out)
    text = f"holds the conversion of {source.name} with dtype as stored, not of {source.name} with dtype "
    refused(source, out, out, text + "float16", "name another directory", dtype="float16")
    refused(source, out, text + "as stored and mesh data=1", mesh="data=1")
    folder.weights["model.norm.weight"] = folder.weights["model.norm.weight"] + 1
    refused(open_checkpoint(folder.write()), out, "whose files have changed since", "name another directory")


def test_the_same_conversion_again_does_nothing(folder, tmp_path, monkeypatch):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    convert(source, out)
    monkeypatch.setattr(saved, "write_part", interrupted)
    convert(source, out)
    shutil.move(folder.path, tmp_path / "moved")
    convert(open_checkpoint(str(tmp_path / "moved")), out)


def test_other_places_are_refused(folder, tmp_path):
    source = open_checkpoint(folder.write())
    refused(source, folder.path, folder.path, "holds files that are no conversion", "name a new directory")
    (tmp_path / "file").write_text("mine")
    refused(source, tmp_path / "file", tmp_path / "file", "cannot be written (File exists)", "name another directory")
    refused(source, tmp_path / "file" / "out", "cannot be written (Not a directory)")
    refused(source, tmp_path / "out", "dtype 'int4'", "choose float32", error=ConfigError, dtype="int4")
    refused(source, tmp_path / "out", "mesh 'model=9': needs 9 devices", error=ConfigError, mesh="model=9")
    assert not (tmp_path / "out").exists()


def test_a_source_that_does_not_fit_leaves_nothing(folder, tmp_path):
    del folder.weights["model.norm.weight"]
    refused(open_checkpoint(folder.write()), tmp_path / "out", "missing: model.norm.weight")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 2}'])
def test_a_marker_that_is_not_ours(folder, tmp_path, text):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    convert(source, out)
    (out / "jaxtrace.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"jaxtrace.json: not what this version of jaxtrace writes"):
        jaxtrace.load(str(out))
    refused(source, out, "jaxtrace.json: not what this version of jaxtrace writes")


PARTS = ("attention.k", "attention.o", "attention.q", "attention.v", "attention_norm.weight", "feed_forward.down")
PARTS += ("feed_forward.gate", "feed_forward.up", "feed_forward_norm.weight")
BIASES = [f"layers.{i}.attention.{name}_bias" for i in range(2) for name in "koqv"]
# name → (config, what changes in it, the problems)
CHANGED = {
    "a layer less": (CONFIG, {"num_hidden_layers": 1}, [f"unknown: layers.1.{part}" for part in PARTS]),
    "a layer more": (CONFIG, {"num_hidden_layers": 3}, [f"missing: layers.2.{part}" for part in PARTS]),
    "tied": (CONFIG, {"tie_word_embeddings": True}, ["unknown: unembedding"]),
    "untied": (TIED, {"tie_word_embeddings": False}, ["missing: unembedding"]),
    "biases": (CONFIG, {"attention_bias": True}, [f"missing: {name}" for name in BIASES]),
    "no biases": (CONFIG | {"attention_bias": True}, {"attention_bias": False}, [f"unknown: {x}" for x in BIASES]),
    "a shape": (
        CONFIG,
        {"vocab_size": 14},
        [f"{x} has shape [13, 8], not [14, 8]" for x in ("embedding", "unembedding")],
    ),
}


def unreadable(out, at=""):
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(str(out))
    assert str(error.value) == f"{out}: the parameters{at} cannot be read; convert it again, into a new directory"


def test_parameters_that_were_lost(folder, tmp_path):
    """In a process of its own: TensorStore's threads complain on after Orbax has given up."""
    out = tmp_path / "out"
    convert(open_checkpoint(folder.write()), out)
    for file in (out / "params").rglob("d/*"):
        file.unlink()
    script = (
        "import sys, jaxtrace\ntry:\n    jaxtrace.load(sys.argv[1])\nexcept jaxtrace.CheckpointError as error:\n"
        "    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.stdout == f"{out}: the parameters cannot be read; convert it again, into a new directory\n"
    shutil.rmtree(out / "params")
    unreadable(out)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"x" * len(content)])
def test_a_damaged_file(folder, tmp_path, damage):
    out = tmp_path / "out"
    convert(open_checkpoint(folder.write()), out)
    file = out / "params" / "state" / "_METADATA"
    file.write_bytes(damage(file.read_bytes()))
    unreadable(out)


def test_numbers_that_were_cut_off(folder_of, tmp_path):
    out = tmp_path / "out"
    convert(open_checkpoint(folder_of(CONFIG | {"vocab_size": 5000, "tie_word_embeddings": True}).write()), out)
    file = max((out / "params").rglob("d/*"), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:1000])
    unreadable(out, " at embedding")


@pytest.mark.parametrize("change", CHANGED)
def test_a_config_that_was_changed_since(folder_of, tmp_path, change):
    config, changed, problems = CHANGED[change]
    out = tmp_path / "out"
    convert(open_checkpoint(folder_of(config).write()), out)
    (out / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(str(out))
    assert str(error.value) == f"{out}: the weights do not fit the config ({'; '.join(problems)})"


def test_a_full_disk(folder, tmp_path):
    """A process that may write no file beyond a few kilobytes."""
    script = (
        "import resource, sys; from jaxtrace.cli import app; import jaxtrace.checkpoints.convert\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); sys.argv[1:] = ['convert', *sys.argv[1:]]; app()"
    )
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", script, folder.write(), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"jaxtrace: {out}: cannot be written") and done.stderr.count("\n") == 1, done.stderr
    convert(open_checkpoint(str(folder.path)), out)
    same_as(folder.path, out)
