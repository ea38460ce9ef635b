"""Sweep files, the cells they describe, and their error messages."""

import pytest
import yaml

from jaxtrace.errors import ConfigError
from jaxtrace.run import RunConfig
from jaxtrace.sweeping import read_sweep


@pytest.fixture
def cells(tmp_path):
    """Return the cells of a sweep file with these fields."""

    def read(mesh=None, **fields):
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(fields))
        return read_sweep(file, mesh)

    return read


def test_cells_are_all_combinations_ordered_by_model(cells):
    found = cells(
        models=["demo", "llama-3.2-1b"],
        tasks=["gsm8k", {"prompts": "mine.txt"}],
        samplers=["greedy", {"temperature": 0.7, "top_k": 5}],
        seeds=[3, 4],
        probes=["all", ["output", "lens"]],
        settings={"max_new_tokens": 5},
    )
    assert len(found) == 2 * 2 * (1 + 2) * 2
    assert [cell.model for cell in found] == ["demo"] * 12 + ["llama-3.2-1b"] * 12
    assert len({cell.partition for cell in found}) == 24
    assert {cell.task for cell in found} == {"gsm8k", "mine"}
    drawn = [cell.config for cell in found if cell.config.sampler == "sample"]
    assert {(config.temperature, config.top_k, config.seed) for config in drawn} == {(0.7, 5, 3), (0.7, 5, 4)}
    assert {config.probes for config in drawn} == {("all",), ("output", "lens")}
    assert {config.max_new_tokens for config in drawn} == {5}


def test_a_model_is_enough_for_a_sweep(cells):
    (cell,) = cells(models="demo")
    assert cell.config == RunConfig()
    assert cell.partition.startswith("model=demo/task=own/run=greedy-all-")


def test_settings_that_do_not_change_rows_keep_the_run_s_name(cells):
    (cell,) = cells(models="demo", samplers={"temperature": 0.6, "top_p": 0.9}, probes=[["output", "lens"]])
    assert cell.run.startswith("t0.6-p0.9-seed0-output.lens-")
    for settings in ({"batch_size": 3}, {"mesh": "data=2"}, {"max_new_tokens": 64}):
        other = cells(
            models="demo", samplers={"temperature": 0.6, "top_p": 0.9}, probes=[["output", "lens"]], settings=settings
        )
        assert other[0].partition == cell.partition
    other = cells(models="demo", samplers={"temperature": 0.6, "top_p": 0.9}, settings={"max_new_tokens": 65})
    assert other[0].run != cell.run


def test_names_come_from_paths_hub_ids_or_the_name_field(cells, tmp_path):
    (tmp_path / "my model").mkdir()
    found = cells(
        models=["meta-llama/Llama-3.2-1B", str(tmp_path / "my model"), {"model": "demo", "name": "small"}],
        tasks={"task": "gsm8k", "name": "sums"},
    )
    assert [cell.model for cell in found] == ["meta-llama/Llama-3.2-1B", "my model", "small"]
    assert found[0].partition.startswith("model=meta-llama%2FLlama-3.2-1B/task=sums/run=greedy-all-")


def test_axes_override_settings_and_the_mesh_option_overrides_both(cells):
    found = cells(
        mesh="data=4",
        models=["demo", {"model": "gpt2", "batch_size": 1}],
        tasks=["gsm8k", {"task": "mmlu", "max_new_tokens": 8}],
        settings={"max_new_tokens": 100, "batch_size": 2, "mesh": "data=2"},
    )
    assert [cell.config.max_new_tokens for cell in found] == [100, 8, 100, 8]
    assert [cell.config.batch_size for cell in found] == [2, 2, 1, 1]
    assert {cell.config.mesh for cell in found} == {"data=4"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "models is missing; give it"),
        (
            {"models": "demo", "model": "demo"},
            "model: no such setting; did you mean 'models'? there are: models, revisions, tasks, samplers",
        ),
        ({"models": []}, "models is []; give at least one entry"),
        ({"models": {"name": "demo"}}, "models: the entry {'name': 'demo'} names no model; add 'model'"),
        ({"models": "demo", "settings": {"tempo": 1}}, "settings: has no setting 'tempo'; choose from allow_special"),
        ({"models": "demo", "settings": {"out": "x"}}, "settings: has no setting 'out'"),
        ({"models": "demo", "samplers": {"heat": 1}}, "samplers: has no setting 'heat'"),
        ({"models": "demo", "samplers": {"name": "hot"}}, "samplers: has no setting 'name'"),
        ({"models": "demo", "tasks": {"task": "mmlu", "seed": 1}, "seeds": [1]}, "tasks and seeds both set 'seed'"),
        (
            {"models": "demo", "samplers": "beam"},
            "demo on own: sampler is beam; it must be 'greedy', 'sample', 'entropix' or 'dslider'",
        ),
        (
            {"models": "demo", "settings": {"samples": 2}},
            "samples is 2, and the greedy sampler draws equal ones; use sampler 'sample'",
        ),
        ({"models": "demo", "seeds": ["one"]}, "demo on own: seed is one; it must be a valid integer"),
        ({"models": "demo", "probes": ["heads"]}, "no probe group 'heads'"),
        ({"models": "gpt2"}, "gpt2 on own: nothing to trace"),
        ({"models": ["demo", "demo"]}, "two entries are named 'demo'; give one of them another 'name'"),
        ({"models": "demo", "tasks": ["mmlu", {"task": "mmlu", "limit": 3}]}, "two entries are named 'mmlu'"),
    ],
)
def test_bad_files_are_refused_in_one_line(cells, fields, message):
    with pytest.raises(ConfigError) as error:
        cells(**fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_run_names_of_entropix_and_dslider(cells):
    found = cells(models="demo", samplers=["entropix", {"sampler": "entropix", "thresholds": "server"}, "dslider"])
    assert [cell.run.split("-all-")[0] for cell in found] == [
        "entropix-classic-seed0",
        "entropix-server-seed0",
        "dslider-seed0",
    ]
