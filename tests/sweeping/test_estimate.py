"""Estimates for sweeps, before any cell runs."""

from pathlib import Path

import pytest
import yaml

from jaxtrace.errors import JaxtraceError
from jaxtrace.figures.tables.sweep import sweep_table
from jaxtrace.model import open_model_checkpoint
from jaxtrace.models.published import find_published
from jaxtrace.planning.cost import lens_flops, parameter_count, step_flops, trace_bytes
from jaxtrace.run import RunConfig, encode_prompts
from jaxtrace.settings.probes import Probes
from jaxtrace.sweeping import Machine, estimate_sweep, read_sweep
from jaxtrace.sweeping.manifest import Manifest
from jaxtrace.traces.location import Location

MACHINE = Machine.of(10, 0.5)
CONFIGS = Path(__file__).parents[2] / "configs" / "sweeps"


@pytest.fixture
def estimates(tmp_path):
    def of(**fields):
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(fields))
        return estimate_sweep(read_sweep(file), tmp_path / "out", MACHINE)

    return of


def test_local_model_is_estimated_from_its_config_and_prompts(estimates):
    (found,) = estimates(models="demo", settings={"limit": 7, "max_new_tokens": 11, "batch_size": 4})
    config = open_model_checkpoint("demo").config
    assert (found.prompts, found.tokens, found.unchecked) == (7, 77, ())
    assert found.bytes == 77 * sum(trace_bytes(config, Probes.all()).values())
    steps = 20 * max(4 * parameter_count(config) / 10e9, 4 * (step_flops(config) + lens_flops(config)) / 0.5e12)
    assert steps < found.seconds < 2 * steps  # the rest is prefill


def test_prompt_positions_add_bytes_but_no_tokens(estimates):
    settings = {"limit": 2, "max_new_tokens": 5, "batch_size": 4}
    (plain,) = estimates(models="demo", settings=settings)
    (found,) = estimates(models="demo", settings=settings | {"prompt_positions": True})
    checkpoint = open_model_checkpoint("demo")
    prompt_steps = sum(len(tokens) - 1 for _, tokens in encode_prompts(RunConfig(limit=2), checkpoint))
    assert (found.tokens, found.recorded) == (plain.tokens, plain.tokens + prompt_steps)
    assert found.bytes == found.token_bytes * (10 + prompt_steps)


def test_scored_text_counts_its_own_tokens(estimates, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"tokens": [1, 2, 3]}\n{"tokens": [4, 5]}\n')
    task = {"prompts": str(tmp_path / "a.jsonl"), "score": True}
    (found,) = estimates(models="demo", tasks=task, probes="output")
    config = open_model_checkpoint("demo").config
    assert (found.prompts, found.tokens) == (2, 5)
    assert found.seconds == pytest.approx(5 * step_flops(config) / 0.5e12)


def test_published_model_is_estimated_from_its_shape(estimates):
    one, two = estimates(
        models="meta-llama/Llama-3.2-1B-Instruct",
        tasks=["gsm8k", {"task": "story-questions", "limit": 10}],
        probes="attention",
        settings={"max_new_tokens": 100, "batch_size": 1},
    )
    config = find_published("llama-3.2-1b").config
    assert (one.prompts, one.tokens, two.prompts) == (1319, 131_900, 10)
    assert one.token_bytes == sum(trace_bytes(config, Probes.of("attention")).values())
    assert one.seconds == pytest.approx(131_900 * 4 * parameter_count(config) / 10e9)
    assert len(one.unchecked) == len(two.unchecked) == 2


def test_unknown_models_have_unknown_estimates(estimates):
    (found,) = estimates(models="someone/tuned", tasks={"task": "story-questions"})
    assert (found.prompts, found.tokens, found.bytes, found.seconds) == (None, None, None, None)


def test_time_is_shared_by_devices(estimates):
    fields = {"models": "gpt2", "tasks": "gsm8k"}
    (one,), (eight,) = estimates(**fields), estimates(**fields, settings={"mesh": "data=2,model=4"})
    assert eight.seconds == pytest.approx(one.seconds / 8)


def test_rate_of_a_complete_cell_replaces_the_machine_s(estimates, tmp_path):
    fields = {"models": "demo", "samplers": {"temperature": 0.5}, "seeds": [0, 1], "settings": {"max_new_tokens": 10}}
    first, _ = estimates(**fields)
    Manifest(Location.of(tmp_path / "out")).update(first.cell, state="complete", tokens_per_second=4.0)
    for found in estimates(**fields):
        assert found.measured and found.seconds == found.tokens / 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": "./nowhere", "tasks": "gsm8k"}, "./nowhere on gsm8k: ./nowhere: no such directory"),
        (
            {"models": "demo", "tasks": {"task": "gsm8k", "data": "gone.jsonl"}},
            "demo on gsm8k: gone.jsonl: No such file",
        ),
        ({"models": "demo", "tasks": {"prompts": "gone.txt"}}, "demo on gone: gone.txt: No such file"),
        ({"models": "demo", "tasks": "trivia"}, "no task is named 'trivia'"),
        ({"models": "demo", "tasks": {"text": "Where " * 2000}}, "the context of demo holds"),
        ({"models": "demo", "settings": {"mesh": "date=2"}}, "mesh is date=2; not sizes of data and model"),
    ],
)
def test_mistakes_are_found_and_name_the_cell(estimates, fields, message):
    with pytest.raises(JaxtraceError) as error:
        estimates(**fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_published_sweep_files_have_complete_estimates(file, tmp_path):
    estimates = estimate_sweep(read_sweep(file), tmp_path / "out", MACHINE)
    assert all(estimate.tokens and estimate.bytes and estimate.seconds for estimate in estimates)
    assert sweep_table(estimates, MACHINE)
    assert not (tmp_path / "out").exists()
