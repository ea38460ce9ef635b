"""The README says what is so: its examples run, its table is the schema's, its commands are real."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from jaxtrace.cli import app
from jaxtrace.run import RunConfig, run_config
from scripts import metric_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}


def examples(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("example", examples(README), ids=range(len(examples(README))))
def test_python_examples_run(example, tmp_path):
    runs(example, tmp_path)


@pytest.mark.parametrize("example", examples(DOCS["devices"]), ids=range(len(examples(DOCS["devices"]))))
def test_examples_on_many_devices_run(example, tmp_path):
    runs(example, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=8")


def runs(example, tmp_path, **variables):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_metric_tables_are_those_of_the_schema():
    assert "<!-- metrics:begin -->" in README
    assert not metric_tables.stale_pages(), "run python scripts/metric_tables.py"


def test_options_it_names_exist():
    known = set(_options(typer.main.get_command(app)))
    text = "\n".join([README, *DOCS.values()])
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in _ours(block)]
    options = set(re.findall(r"--[a-z][a-z-]+", " ".join([*commands, *re.findall(r"`(--[^`]*)`", text)])))
    assert options >= {"--task", "--limit", "--score", "--config", "--resume", "--distributed", "--search", "--dry-run"}
    assert sorted(options - known) == []


def _options(command):
    """Options of a verb, and of all verbs under it."""
    yield from (option for parameter in command.params for option in parameter.opts)
    for verb in getattr(command, "commands", {}).values():
        yield from _options(verb)


def _ours(block):
    """The part of each command that is jaxtrace's."""
    lines = block.replace("\\\n", " ").splitlines()
    return [re.split(r"[&#\"]", line[line.index("jaxtrace ") :])[0] for line in lines if "jaxtrace " in line]


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_configurations_are_valid(file):
    config = run_config(file)
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert set(given) <= set(RunConfig.model_fields)
    assert config.model == given["model"]
