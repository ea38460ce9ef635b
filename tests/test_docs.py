"""Pages of studies and grades: every command on them runs on the embedded model."""

import re
import shlex
from pathlib import Path

import pytest

from tests.commands import run_command

ROOT = Path(__file__).parent.parent
VERBS = re.compile(r"^jaxtrace (study|confidence|lab|tuned-lens|grade|estimate) ", re.MULTILINE)
STUDIES = [page for page in sorted((ROOT / "docs").glob("*.md")) if VERBS.search(page.read_text(encoding="utf-8"))]


def commands(page):
    """Return the whole command lines of a page's sh blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


# Pages whose commands take a minute run nightly; test_readme.py checks the options of every page.
LONG = ("confidence", "dynamics", "estimators", "interventions", "lab", "lens", "patterns", "samplers", "tuned-lens")
PAGES = [pytest.param(page, id=page.stem, marks=[pytest.mark.nightly] * (page.stem in LONG)) for page in STUDIES]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs(page, tmp_path, monkeypatch):
    """In one process, which keeps compiled programs for the next command, as the compile cache does for a reader."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        program, *words = shlex.split(command, comments=True)
        done = run_command(*words)
        assert program == "jaxtrace" and done.status == 0, f"{command}\n{done.out[-4000:]}{done.err[-4000:]}"


def test_no_page_names_an_output_of_another_page():
    """Outputs that exist are refused: a reader follows several pages in one directory."""
    output = re.compile(r"jaxtrace (?:trace|study|confidence|grade|estimate|report) .*--out ([^\s#]+)")
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    lines = [line for page in pages for line in commands(page) if not re.search("--resume|--process ", line)]
    names = [match[1] for match in map(output.match, lines) if match]
    assert [name for name in names if names.count(name) > 1 or any(x.startswith(f"{name}/") for x in names)] == []
