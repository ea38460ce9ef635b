"""Converted checkpoints hold the same bits as their source; a directory is complete or reports that it is not."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

import jaxtrace
from jaxtrace import CheckpointError, ConfigError, StoreError
from jaxtrace.checkpoints import convert as converting
from jaxtrace.checkpoints import orbax
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from tests.checkpoints.conftest import CONFIG, GEMMA2, GPT2, GPT_NEOX, Folder
from tests.models.cases import SMALL

PROMPTS = [[1, 5, 3], [2, 2, 7, 8]]
STORED = {
    "float32": (np.float32,),
    "bfloat16": (ml_dtypes.bfloat16,),
    "mixed": (np.float16, ml_dtypes.bfloat16, np.float32),
}


def assert_same_traces(one, other, **options):
    """Compare every metric, bit for bit."""
    traces = [jaxtrace.load(str(name), **options).generate(PROMPTS, max_new_tokens=4) for name in (one, other)]
    for a, b in zip(*(trace.rows for trace in traces), strict=True):
        assert set(a.metrics) == set(b.metrics)
        for name, values in a.metrics.items():
            np.testing.assert_array_equal(values, b.metrics[name], err_msg=name)


def assert_same_parameters(one, other):
    """Compare every parameter, bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.sharding) == (b.dtype, b.sharding)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_same_checkpoint(source, out):
    assert_same_parameters(open_checkpoint(str(source)).read(), open_checkpoint(str(out)).read())


def stored_as(folder, dtypes):
    for i, name in enumerate(sorted(folder.weights)):
        folder.weights[name] = folder.weights[name].astype(dtypes[i % len(dtypes)])
    return folder


TIED = CONFIG | {"tie_word_embeddings": True}
ROUTED = SMALL["qwen3_moe"] | {"model_type": "qwen3_moe", "num_hidden_layers": 3, "mlp_only_layers": [1]}
CONFIGS = {"untied": CONFIG, "tied": TIED, "two kinds of layers": GEMMA2, "fused": GPT2, "head by head": GPT_NEOX}
CONFIGS["experts"] = ROUTED


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        pytest.param("untied", "float32", marks=pytest.mark.nightly),
        ("tied", "bfloat16"),
        pytest.param("two kinds of layers", "mixed", marks=pytest.mark.nightly),  # test_restoring.py converts it too
        pytest.param("fused", "mixed", marks=pytest.mark.nightly),
        pytest.param("head by head", "mixed", marks=pytest.mark.nightly),
        pytest.param("experts", "mixed", marks=pytest.mark.nightly),
    ],
)
def test_a_conversion_keeps_every_parameter(folder_of, tmp_path, config, stored):
    source = open_checkpoint(stored_as(folder_of(CONFIGS[config]), STORED[stored]).write_sharded())
    convert(source, tmp_path / "out")
    converted = open_checkpoint(str(tmp_path / "out"))
    for dtype, stacked in (("float32", False), ("bfloat16", True)):
        assert_same_parameters(*(checkpoint.read(dtype, stacked=stacked) for checkpoint in (source, converted)))


def test_a_conversion_keeps_an_unembedding_that_differs(folder_of, tmp_path):
    folder = folder_of(TIED)
    folder.weights["lm_head.weight"] = 2 * folder.weights["model.embed_tokens.weight"]
    source = open_checkpoint(folder.write())
    convert(source, tmp_path / "out")
    converted = open_checkpoint(str(tmp_path / "out"))
    assert (converted.config, converted.fingerprint()) == (source.config, source.fingerprint())
    assert not converted.config.tied and len(converted.notes) == 1
    assert_same_parameters(*(checkpoint.read() for checkpoint in (source, converted)))
    assert jaxtrace.load(str(tmp_path / "out"), random=True).config == source.config


def test_a_conversion_gives_the_same_traces(folder, tmp_path):
    source = stored_as(folder, STORED["mixed"]).write_sharded()
    convert(open_checkpoint(source), tmp_path / "out")
    assert_same_traces(source, tmp_path / "out", dtype="float32")


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        pytest.param("float32", "bfloat16", marks=pytest.mark.nightly),
        pytest.param("float32", "float16", marks=pytest.mark.nightly),
        pytest.param("bfloat16", "float32", marks=pytest.mark.nightly),
        ("mixed", "float16"),
    ],
)
def test_a_conversion_rounds_as_a_load_does(folder, tmp_path, stored, dtype):
    source = open_checkpoint(stored_as(folder, STORED[stored]).write())
    convert(source, tmp_path / "out", dtype=dtype)
    converted = open_checkpoint(str(tmp_path / "out"))
    assert_same_parameters(source.read(dtype), converted.read(dtype))


def test_only_rounding_changes_the_fingerprint(folder, tmp_path):
    source = open_checkpoint(stored_as(folder, STORED["bfloat16"]).write())
    fingerprints = {}
    for dtype in (None, "bfloat16", "float32", "float16"):
        convert(source, tmp_path / str(dtype), dtype=dtype)
        fingerprints[dtype] = open_checkpoint(str(tmp_path / str(dtype))).fingerprint()
    assert fingerprints[None] == fingerprints["bfloat16"] == fingerprints["float32"] == source.fingerprint()
    assert fingerprints["float16"] != source.fingerprint()
    config = tmp_path / "None" / "config.json"
    config.write_text(config.read_text().replace("1e-05", "1e-06"))
    assert open_checkpoint(str(tmp_path / "None")).fingerprint() != source.fingerprint()


def test_a_conversion_can_be_converted(folder, tmp_path):
    source = stored_as(folder, STORED["mixed"]).write_sharded()
    convert(open_checkpoint(source), tmp_path / "one")
    convert(open_checkpoint(str(tmp_path / "one")), tmp_path / "two")
    assert_same_checkpoint(source, tmp_path / "two")
    assert len({open_checkpoint(str(x)).fingerprint() for x in (source, tmp_path / "one", tmp_path / "two")}) == 1


def test_files_of_a_converted_checkpoint(folder, tmp_path):
    source = stored_as(folder, STORED["bfloat16"]).write_sharded()
    (folder.path / "generation_config.json").write_text('{"eos_token_id": 7}')
    (folder.path / "notes.txt").write_text("mine")
    convert(open_checkpoint(source), tmp_path / "out")
    names = ["config.json", "generation_config.json", "jaxtrace.json", "params"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    marker = json.loads((tmp_path / "out" / "jaxtrace.json").read_text())
    assert marker["source"] == source and marker["dtype"] == "as stored"
    assert marker["fingerprint"] == open_checkpoint(source).fingerprint()
    assert open_checkpoint(str(tmp_path / "out")).stop_tokens == (2, 7)
    with pytest.warns(UserWarning, match="Sharding info not provided"):
        plain = ocp.load(str(tmp_path / "out" / "params"))
    q = jaxtrace.load(source, dtype="bfloat16").params["layers"][1]["attention"]["q"]
    np.testing.assert_array_equal(np.asarray(plain["layers"]["1"]["attention"]["q"]), np.asarray(q))


def test_progress_counts_bytes_of_parts_that_are_no_larger_than_the_largest_parameter(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(converting, "PART", 0)
    counts, sizes = [], [values.nbytes for values in folder.weights.values()]
    convert(open_checkpoint(folder.write()), tmp_path / "out", on_progress=lambda *written: counts.append(written))
    assert counts[-1] == (sum(sizes), sum(sizes)) and {whole for _, whole in counts} == {sum(sizes)}
    parts = np.diff([0, *(written for written, _ in counts)])
    assert parts.min() > 0 and parts.max() == max(sizes)
    assert_same_checkpoint(folder.path, tmp_path / "out")


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("parts", [pytest.param(n, marks=() if n in (2, 5) else pytest.mark.nightly) for n in range(6)])
def test_an_interrupted_conversion_is_resumed(folder, tmp_path, monkeypatch, parts):
    """Interrupt before the part with this number; after all 5, while they are joined."""
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    write_part, written = orbax.write_part, []

    def write_some(directory, path, tree):
        if len(written) == parts:
            raise KeyboardInterrupt
        written.append(path)
        write_part(directory, path, tree)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(orbax, "write_part", write_some)
        patch.setattr(orbax, "finish", interrupt)
        convert(source, out)
    with pytest.raises(CheckpointError, match="half-written; run the same jaxtrace convert again"):
        jaxtrace.load(str(out))
    resumed = []
    monkeypatch.setattr(orbax, "write_part", lambda *part: (resumed.append(part[1]), write_part(*part)))
    convert(source, out)
    assert len(resumed) == (5 if parts == 5 else 5 - parts)  # an interrupted join starts again
    assert_same_checkpoint(folder.path, out)


def test_a_conversion_without_its_marker_is_finished(folder, tmp_path, monkeypatch):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    write_json = converting._write_json

    def write_all_but_the_marker(path, content):
        if path.name == "jaxtrace.json":
            raise KeyboardInterrupt
        write_json(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(converting, "_write_json", write_all_but_the_marker)
        convert(source, out)
    with pytest.raises(CheckpointError, match="half-written"):
        jaxtrace.load(str(out))
    monkeypatch.setattr(orbax, "write_part", interrupt)
    convert(source, out)
    assert_same_checkpoint(folder.path, out)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(("layers", "moment"), [(12, 0.0), (40, 0.4)])
def test_a_killed_conversion_is_resumed(tmp_path, layers, moment):
    """Kill the process some seconds after the first part has begun, then convert again."""
    folder = Folder(tmp_path / "tiny", CONFIG | {"num_hidden_layers": layers})
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jaxtrace.cli", "convert", folder.write(), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    deadline = time.monotonic() + 60
    while not (out / "params.partial_save").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(moment)
    assert process.poll() is None, "finished before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(CheckpointError, match="half-written"):
        jaxtrace.load(str(out))
    convert(open_checkpoint(str(folder.path)), out)
    assert_same_checkpoint(folder.path, out)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "jaxtrace.json", "params"]


def refused(checkpoint, out, *parts, error=CheckpointError, **options):
    """Assert that converting fails in one line that contains all parts, and changes no file."""
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(error) as raised:
        convert(checkpoint, out, **options)
    message = str(raised.value)
    assert "\n" not in message and not [part for part in parts if str(part) not in message], message
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("finished", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_another_conversion_is_refused(folder, tmp_path, monkeypatch, finished):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    if finished:
        convert(source, out)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(orbax, "finish", interrupt)
            convert(source, out)
    text = f"holds the conversion of {source.name} with dtype as stored, not of {source.name} with dtype "
    refused(source, out, out, text + "float16", "name another directory", dtype="float16")
    refused(source, out, text + "as stored and mesh data=1", mesh="data=1")
    folder.weights["model.norm.weight"] = folder.weights["model.norm.weight"] + 1
    refused(open_checkpoint(folder.write()), out, "whose files have changed since", "name another directory")


def test_a_finished_conversion_is_not_repeated(folder, tmp_path, monkeypatch):
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    convert(source, out)
    monkeypatch.setattr(orbax, "write_part", interrupt)
    refused(source, out, out, "holds this conversion, finished; accept it with --resume, replace it with --overwrite")
    convert(source, out, resume=True)
    shutil.move(folder.path, tmp_path / "moved")
    convert(open_checkpoint(str(tmp_path / "moved")), out, resume=True)


@pytest.mark.parametrize("finished", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_another_conversion_is_overwritten_on_request(folder, tmp_path, monkeypatch, finished):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        if not finished:
            patch.setattr(orbax, "finish", interrupt)
        convert(open_checkpoint(folder.write()), out, dtype="float16")
    (out / "chat_template.jinja").write_text("of the other model")
    (out / "notes.txt").write_text("mine")
    refused(open_checkpoint(str(folder.path)), out, "replace it with --overwrite, or name another directory")
    convert(open_checkpoint(str(folder.path)), out, overwrite=True)
    assert_same_checkpoint(folder.path, out)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "jaxtrace.json", "notes.txt", "params"]


def test_the_checkpoint_to_convert_is_not_overwritten(folder, tmp_path):
    convert(open_checkpoint(folder.write()), tmp_path / "out")
    converted = open_checkpoint(str(tmp_path / "out"))
    refused(converted, tmp_path / "out", "is the checkpoint to convert; name another directory", overwrite=True)
    refused(converted, folder.path, "holds files that are no conversion", overwrite=True)


def test_a_disk_without_room_is_found_before_the_conversion(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(orbax, "write_part", interrupt)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device \(.* KiB needed, .*B free"):
        convert(open_checkpoint(folder.write()), tmp_path / "out")


def test_other_directories_and_settings_are_refused(folder, tmp_path):
    source = open_checkpoint(folder.write())
    refused(source, folder.path, folder.path, "holds files that are no conversion", "name a new directory")
    (tmp_path / "file").write_text("mine")
    refused(source, tmp_path / "file", tmp_path / "file", "is a file; name a directory", error=StoreError)
    refused(source, tmp_path / "file" / "out", "Not a directory", error=StoreError)
    refused(source, tmp_path / "out", "dtype 'int4'", "choose float32", error=ConfigError, dtype="int4")
    refused(source, tmp_path / "out", "mesh 'model=9': needs 9 devices", error=ConfigError, mesh="model=9")
    assert not (tmp_path / "out").exists()


def test_an_invalid_source_writes_nothing(folder, tmp_path):
    del folder.weights["model.norm.weight"]
    refused(open_checkpoint(folder.write()), tmp_path / "out", "missing: model.norm.weight")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def converted(tmp_path, converted_once):
    """A function that returns a fresh copy of the conversion of a config."""

    def copy(config=CONFIG):
        return shutil.copytree(converted_once(json.dumps(config)), tmp_path / "out")

    return copy


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory):
    """A function that converts a checkpoint of a config, given as JSON, once."""

    @functools.cache
    def directory(config):
        folder = Folder(tmp_path_factory.mktemp("source") / "tiny", json.loads(config))
        out = tmp_path_factory.mktemp("converted") / "out"
        convert(open_checkpoint(folder.write()), out)
        return out

    return directory


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 2}'])
def test_an_invalid_marker_is_refused(folder, converted, text):
    source, out = open_checkpoint(folder.write()), converted()
    (out / "jaxtrace.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"jaxtrace.json: not what this version of jaxtrace writes"):
        jaxtrace.load(str(out))
    refused(source, out, "jaxtrace.json: not what this version of jaxtrace writes")


def five(layer):
    """Return the text of a layer's first five of nine parameters."""
    names = [f"layers.{layer}.attention.{x}" for x in "koqv"]
    return ", ".join([*names, f"layers.{layer}.attention_norm.weight"]) + f" and 4 more (all under layers.{layer})"


BIASES = ", ".join(f"layers.{layer}.attention.{x}_bias" for layer, x in zip([0, 0, 0, 0, 1], "koqvk", strict=True))
BIASES += " and 3 more (all under layers)"
# name → (config, changes after the conversion, problems)
CHANGED = {
    "a layer less": (CONFIG, {"num_hidden_layers": 1}, f"unknown: {five(1)}"),
    "a layer more": (CONFIG, {"num_hidden_layers": 3}, f"missing: {five(2)}"),
    "tied": (CONFIG, {"tie_word_embeddings": True}, "unknown: unembedding"),
    "untied": (TIED, {"tie_word_embeddings": False}, "missing: unembedding"),
    "biases": (CONFIG, {"attention_bias": True}, f"missing: {BIASES}"),
    "no biases": (CONFIG | {"attention_bias": True}, {"attention_bias": False}, f"unknown: {BIASES}"),
    "a shape": (
        CONFIG,
        {"vocab_size": 14},
        "; ".join(f"{x} has shape [13, 8], not [14, 8]" for x in ("embedding", "unembedding")),
    ),
}


def assert_unreadable(out, at=""):
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(str(out))
    assert str(error.value) == f"{out}: the parameters{at} cannot be read; convert it again, into a new directory"


def test_lost_parameters_are_reported_and_nothing_else_is_printed(converted, tmp_path):
    """Load in a subprocess, because TensorStore's threads and Orbax's tasks print errors after Orbax has failed."""
    out = converted(TIED | {"vocab_size": 5000})
    some = shutil.copytree(out, tmp_path / "some")
    max((some / "params").rglob("d/*"), key=lambda file: file.stat().st_size).unlink()
    for file in (out / "params").rglob("d/*"):
        file.unlink()
    script = (
        "import sys, jaxtrace\nfor name in sys.argv[1:]:\n    try:\n        jaxtrace.load(name)\n"
        "    except jaxtrace.CheckpointError as error:\n        print(error)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(some), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    problems = [f"{some}: the parameters at embedding", f"{out}: the parameters"]
    lines = [f"{problem} cannot be read; convert it again, into a new directory" for problem in problems]
    assert (process.stdout.splitlines(), process.stderr) == (lines, "")
    shutil.rmtree(out / "params")
    assert_unreadable(out)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"x" * len(content)])
def test_damaged_metadata_is_reported(converted, damage):
    out = converted()
    file = out / "params" / "state" / "_METADATA"
    file.write_bytes(damage(file.read_bytes()))
    assert_unreadable(out)


def test_truncated_parameters_are_reported(converted):
    out = converted(TIED | {"vocab_size": 5000})
    file = max((out / "params").rglob("d/*"), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:1000])
    assert_unreadable(out, " at embedding")


@pytest.mark.parametrize("change", CHANGED)
def test_a_config_that_no_longer_fits_is_refused(converted, change):
    config, changes, problems = CHANGED[change]
    out = converted(config)
    (out / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(str(out))
    assert str(error.value) == f"{out}: the weights do not fit the config ({problems})"


def test_a_full_disk_is_reported(folder, tmp_path):
    """Limit the file size of the process to a few kilobytes."""
    script = (
        "import resource, sys; from jaxtrace.cli import main; import jaxtrace.checkpoints.convert\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); sys.argv[1:] = ['convert', *sys.argv[1:]]; main()"
    )
    out = tmp_path / "out"
    process = subprocess.run(
        [sys.executable, "-c", script, folder.write(), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith(f"jaxtrace: {out}: cannot be written") and process.stderr.count("\n") == 1, (
        process.stderr
    )
    convert(open_checkpoint(str(folder.path)), out)
    assert_same_checkpoint(folder.path, out)
