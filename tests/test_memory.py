"""Memory that is exhausted: one line that says what did not fit, how much was asked for, and what to lower."""

import errno
import json
import os
import re
import subprocess
import sys

import jax
import pytest

import jaxtrace
from jaxtrace import ConfigError, Model, OutOfMemoryError, Probes
from jaxtrace.engine.slots import init_rows
from jaxtrace.memory import free_memory, is_out_of_memory, memory_errors, requested_bytes
from tests.cli.test_settings import CONFIG

XLA = {  # what XLA says on CPU, GPU and TPU
    "RESOURCE_EXHAUSTED: Out of memory allocating 4000000000 bytes.": 4_000_000_000,
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.50GiB.\nPeak buffers:": int(12.5 * 2**30),
    "RESOURCE_EXHAUSTED: Failed to allocate request for 1.00GiB (1073741824B) on device ordinal 0": 2**30,
    "RESOURCE_EXHAUSTED: Attempting to reserve 2.50G at the bottom of memory. There are 1.92G free": int(2.5 * 2**30),
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of 15.48G "
    "hbm. Exceeded hbm capacity by 5.02G.": int(20.5 * 2**30),
    "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory": None,
}
OTHERS = {MemoryError("Unable to allocate 8.00 MiB for an array with shape (1,)"): 2**23, MemoryError(): None}
OTHERS[OSError(errno.ENOMEM, "Cannot allocate memory")] = None
FAILURES = {jax.errors.JaxRuntimeError(text): size for text, size in XLA.items()} | OTHERS


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: str(failure)[:60])
def test_every_wording_is_known_and_tells_how_much_was_asked_for(failure):
    with pytest.raises(OutOfMemoryError) as error, memory_errors(lambda asked: f"weights do not fit{asked}; lower it"):
        raise failure
    assert requested_bytes(failure) == FAILURES[failure]
    asked = ", and " in str(error.value)
    assert asked == (FAILURES[failure] is not None) and str(error.value).endswith("; lower it")


@pytest.mark.parametrize(
    "other",
    [
        ConfigError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED"),
        jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Used 3 bytes"),
    ],
    ids=repr,
)
def test_other_errors_pass_unchanged(other):
    assert not is_out_of_memory(other) or isinstance(other, ConfigError)
    with pytest.raises(type(other)) as error, memory_errors(lambda _: "wrong"):
        raise other
    assert error.value is other


@pytest.fixture(scope="module")
def model():
    return Model("tiny", CONFIG, jaxtrace.init_params(CONFIG, jax.random.key(0)))


@pytest.mark.parametrize("verb", ["generate", "score"])
def test_a_run_says_what_its_rows_take_and_what_to_lower(model, monkeypatch, verb):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes.")

    exhausted.eval_shape = init_rows.eval_shape  # for programs that are compiled ahead
    monkeypatch.setattr("jaxtrace.engine.pool.init_rows", exhausted)
    with pytest.raises(OutOfMemoryError) as error:
        getattr(model, verb)([[1], [2], [3]], batch_size=2)
    cache = CONFIG.kv_bytes(2 * 16) / 1024
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) / 1024
    assert str(error.value).startswith(
        f"out of memory: the caches of 2 rows of 16 positions take {cache:.4g} KiB, beside {weights:.4g} KiB of "
        "weights, and 4 KiB was asked for at once; lower batch_size (--batch-size) or max_new_tokens"
    )


def test_rows_that_cannot_fit_are_refused_before_they_are_made(model, monkeypatch):
    monkeypatch.setattr("jaxtrace.engine.memory.memory_limit", lambda: CONFIG.kv_bytes(2 * 16) - 1)
    with pytest.raises(OutOfMemoryError, match="the caches of 2 rows of 16 positions"):
        model.generate([[1], [2]], batch_size=2)
    assert len(model.generate([[1], [2]], batch_size=1, probes=Probes.none()).rows) == 2


SHAPE = {
    **{"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True},
}


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 4},  # more bytes than an int64 counts
        {"intermediate_size": 2**31 - 1, "hidden_size": 2**16},
        {"num_attention_heads": 2**30, "head_dim": 2},
    ],
    ids=str,
)
def test_weights_that_cannot_fit_are_refused_before_they_are_made(tmp_path, change):
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | change))
    with pytest.raises(OutOfMemoryError, match=r"out of memory: the weights take .* GiB in float32, and .* is free"):
        jaxtrace.load(str(tmp_path), random=True)


def test_a_context_of_a_thousand_million_positions_is_refused_only_when_it_is_used(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"max_position_embeddings": 10**9}))
    model = jaxtrace.load(str(tmp_path), random=True)
    with pytest.raises(OutOfMemoryError, match=r"rows of 1,000,000,000 positions take .* GiB"):
        model.generate([[1]], max_new_tokens=2**31 - 1)


def test_weights_that_exhaust_memory_while_they_are_read_are_explained(monkeypatch):
    def exhausted(*_):
        raise MemoryError("Unable to allocate 8.00 MiB for an array with shape (1,)")

    monkeypatch.setattr("jaxtrace.checkpoints.weights.read_part", exhausted)
    with pytest.raises(
        OutOfMemoryError, match=r"out of memory: the weights take .* in float32, and 8 MiB was asked for"
    ):
        jaxtrace.load("demo")


def test_the_command_line_explains_what_the_library_does_not(tmp_path, monkeypatch):
    from tests.commands import run_command

    def exhausted(_):
        raise MemoryError("Unable to allocate 8.00 MiB for an array with shape (1,)")

    monkeypatch.setattr("jaxtrace.traces.open_trace", exhausted)
    done = run_command("grade", tmp_path, "--out", tmp_path / "labels.jsonl")
    assert done.status == 2
    assert done.err.startswith("jaxtrace: grade: out of memory, and 8 MiB was asked for at once; ")
    assert done.err.count("\n") == 1


def test_free_memory_is_below_the_limit_on_the_address_space():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); "
        "from jaxtrace.memory import free_memory; print(free_memory())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 2**29 < int(output) < 2**31
    assert (free_memory() or 0) > 0


LIMITED = """
import resource, sys
import jaxtrace
import jaxtrace.model
model = jaxtrace.load(sys.argv[1]) if sys.argv[2] == "run" else None
import jax.numpy as jnp
jnp.zeros(1).block_until_ready()
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[3]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    if model is None:
        jaxtrace.load(sys.argv[1])
    else:
        model.generate(["hello"] * 32, max_new_tokens=1000, batch_size=32)
except jaxtrace.OutOfMemoryError as error:
    print(error)
"""


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("verb", "room", "line"),
    [
        ("load", 200, "model.safetensors: out of memory: .* cannot be mapped"),
        ("load", 900, "out of memory: the weights take 513.1 MiB in float32"),
        ("run", 1000, "out of memory: the caches of 32 rows of 2,048 positions take 2.812 GiB"),
    ],
)
def test_a_real_model_under_a_limit_on_memory(smollm2, verb, room, line):
    words = [sys.executable, "-c", LIMITED, str(smollm2), verb, str(room)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    (said,) = done.stdout.splitlines()
    assert re.search(line, said), said
