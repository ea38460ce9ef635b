"""Programs that threads compile before the first call."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxtrace import DecoderConfig, Model, Probes, Sample, compilation, init_params
from jaxtrace.checkpoints.huggingface import Checkpoint
from jaxtrace.compilation import COMPILED, Compilations
from jaxtrace.engine import loop, pool
from jaxtrace.run import RunConfig, prepare

CONFIG = DecoderConfig("llama", 31, 16, 2, 4, 2, 4, 24, 256)


@pytest.fixture
def compiled_names():
    names = []

    def on_duration(event, duration_secs, **kwargs):
        if event == COMPILED:
            names.append(kwargs["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    yield names
    jax.monitoring.unregister_event_duration_listener(on_duration)


@pytest.mark.parametrize(
    ("options", "chunk"),
    [
        ({}, "prefill"),
        ({"sampler": Sample(temperature=0.7), "deterministic": True}, "prefill"),
        ({"probes": Probes(output=True, prompt_positions=True), "batch_size": 2}, "score_step"),
    ],
)
def test_calls_use_the_programs_that_were_compiled_ahead(compiled_names, options, chunk):
    config = dataclasses.replace(CONFIG, vocab_size=31 + len(options))  # no other case has its programs
    model = Model("tiny", config, init_params(config, jax.random.key(0)))
    prompts = [[1, 2], [3] * 20, [4] * 5]
    options = {"probes": Probes(output=True)} | options
    trace = model.generate(prompts, max_new_tokens=3, stop_tokens=(), **options)
    assert [len(row.metrics["token"]) - row.prompt_steps for row in trace.rows] == [3, 3, 3]
    assert compiled_names.count("jit(decode_chunk)") == 1
    assert compiled_names.count(f"jit({chunk})") == 2  # of 16 and of 32 positions


def test_a_run_compiles_before_its_weights_are_read(compiled_names, monkeypatch, tmp_path):
    started, read = [], Checkpoint.read

    def compile_in_thread(program, *arguments, **static):
        started.append(program)
        return compilation.compile_in_thread(program, *arguments, **static)

    def read_weights(*args, **options):
        assert started == [pool._prefill_chunk, loop.decode_chunk]
        return read(*args, **options)

    monkeypatch.setattr(pool, "compile_in_thread", compile_in_thread)
    monkeypatch.setattr(Checkpoint, "read", read_weights)
    config = RunConfig(
        text=("a", "b"), max_new_tokens=3, stop=("x",), out=tmp_path, probes=("output",), alphas=(0.375,)
    )
    run = prepare(config)
    trace = run.trace()
    assert [compiled_names.count(f"jit({name})") for name in ("prefill", "decode_chunk")] == [1, 1]
    assert trace.info["compiled"] == run.compiled.as_json()
    assert run.compiled.programs >= 2 and run.compiled.seconds > 0


def test_a_command_knows_that_a_thread_compiles():
    program = jax.jit(lambda x: x + 0.125)
    with compilation._LOCKS[program]:
        compiled = compilation.compile_in_thread(program, 1.0)
        assert compilation.is_compiling()
    compiled.result()
    assert not compilation.is_compiling()


def test_seconds_of_compilations_count_overlapping_stages_once():
    count, spans = Compilations(), [(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.5, 5.75), (8.0, 9.0), (2.5, 5.5)]
    for span in spans:
        count.add_span(*span)
    grid = np.arange(0, 10, 0.25) + 0.125
    covered = sum(any(start <= time < end for start, end in spans) for time in grid) * 0.25
    assert count.seconds == covered == 7.0
