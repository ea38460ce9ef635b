"""README and docs are true: their examples run, their tables are the code's, their options exist."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jaxtrace.cli.app import APP
from jaxtrace.cli.options import Command
from jaxtrace.models.families import FAMILIES
from jaxtrace.settings.run import RunConfig, run_config
from scripts import doc_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}


# Runs every example in a namespace of its own, in one process, and prints one line for each: what it printed, as JSON.
RUN_EXAMPLES = """
import contextlib, io, json, sys
for example in json.loads(sys.stdin.read()):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, example, "exec"), {"__name__": "__main__"})
    print(json.dumps(printed.getvalue()))
"""


@pytest.mark.parametrize(
    ("page", "flags"),
    [
        pytest.param(README, "", id="README"),
        pytest.param(
            DOCS["devices"], "--xla_force_host_platform_device_count=8", id="devices", marks=pytest.mark.nightly
        ),
    ],
)
def test_python_examples_run_and_print(page, flags, tmp_path):
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", RUN_EXAMPLES],
        input=json.dumps(examples),
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(printed) == len(examples) and all(text.strip() for text in printed)


def test_tables_are_those_of_the_code():
    assert "<!-- table:begin recorded -->" in README and "<!-- table:begin families -->" in DOCS["models"]
    assert not doc_tables.stale_pages(), "run python scripts/doc_tables.py"


@pytest.mark.parametrize(
    "module", dict.fromkeys(FAMILIES.values()), ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_a_reason_for_a_refusal_is_of_an_attribute_that_is_refused(module):
    limits = doc_tables.limits(module)
    for name, reason in getattr(module, "REFUSED", {}).items():
        assert name in limits and reason in DOCS["models"]


def _commands_of_pages():
    text = "\n".join([README, *DOCS.values()])
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in _commands(block)]


def test_commands_in_the_pages_have_every_required_option():
    for line in _commands_of_pages():
        words, verb = shlex.split(line)[1:], APP
        while not isinstance(verb, Command):
            verb = verb.members()[words.pop(0)]()
        parsed, _ = verb.parser().parse_known_intermixed_args(words)
        fields = {name: kind.model_fields[name] for kind, names in verb.fields() for name in names}
        assert [name for name, field in fields.items() if field.is_required() and not hasattr(parsed, name)] == [], line


def test_options_in_the_pages_exist():
    known = set(_options(APP))
    text = "\n".join([README, *DOCS.values()])
    options = set(re.findall(r"--[a-z][a-z-]+", " ".join([*_commands_of_pages(), *re.findall(r"`(--[^`]*)`", text)])))
    assert options >= {"--task", "--limit", "--score", "--config", "--resume", "--distributed", "--search", "--dry-run"}
    assert sorted(options - known) == []


def _options(verb):
    """Yield the options of a verb, or of every verb of a group."""
    if isinstance(verb, Command):
        yield from (option for action in verb.parser()._actions for option in action.option_strings)
    else:
        for member in verb.members().values():
            yield from _options(member())


def _commands(block):
    """Return the part of each command line that belongs to jaxtrace."""
    lines = block.replace("\\\n", " ").splitlines()
    return [match[0] for line in lines if (match := re.search(r'jaxtrace (?:[^&#"]|"[^"]*")*', line))]


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_configurations_are_valid(file):
    config = run_config(file)
    fields = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert set(fields) <= set(RunConfig.model_fields)
    assert config.model == fields["model"]
