"""The pages of the studies: every command on them runs on the embedded model."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
VERBS = re.compile(r"^jaxtrace (study|confidence|lab|tuned-lens) ", re.MULTILINE)
STUDIES = [page for page in PAGES if VERBS.search(page.read_text(encoding="utf-8"))]


def commands(page):
    """The lines of its sh blocks, whole."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("page", STUDIES, ids=lambda page: page.stem)
def test_every_command_runs(page, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for command in commands(page):
        words = shlex.split(command, comments=True)
        assert words[0] == "jaxtrace", command
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAXTRACE_CACHE": str(tmp_path / "cache")}
        environment["JAX_ENABLE_COMPILATION_CACHE"] = (
            "1"  # as a reader has it: what one command compiles, the next finds
        )
        done = subprocess.run(
            [sys.executable, "-m", "jaxtrace.cli", *words[1:]],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert "Traceback" not in done.stderr
