"""The package's metadata list what it holds, and rooms import only rooms below them."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    packages = {"jaxtrace"}
    for top, name in (("jaxtrace", "jaxtrace"), ("kernels", "jaxtrace.kernels")):
        for init in (ROOT / top).rglob("__init__.py"):
            packages.add(".".join([name, *init.parent.relative_to(ROOT / top).parts]))
    assert listed == packages


@pytest.fixture
def lint_imports(tmp_path):
    """Return the status and the report of import-linter for a copy of the code with lines added to some files."""

    def lint(planted=()):
        for top in ("jaxtrace", "kernels"):
            shutil.copytree(ROOT / top, tmp_path / top, ignore=lambda _, names: [n for n in names if n == "demo"])
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        for file, line in planted:
            with (tmp_path / file).open("a", encoding="utf-8") as source:
                source.write(f"\n{line}\n")
        command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return run.returncode, run.stdout

    return lint


def test_rooms_import_only_rooms_below_them(lint_imports):
    status, report = lint_imports()
    assert status == 0, report


def test_imports_of_a_room_above_and_circles_are_refused(lint_imports):
    status, report = lint_imports(
        [
            ("jaxtrace/models/rope.py", "import jaxtrace.engine.step"),
            ("kernels/moments.py", "from jaxtrace.errors import JaxtraceError"),
            ("kernels/soft_cap.py", "from .attention import AttentionMoments"),
            ("jaxtrace/studies/lens/compute.py", "import jaxtrace.studies.dynamics.compute"),
        ]
    )
    assert status == 1
    for edge in (
        "jaxtrace.models.rope -> jaxtrace.engine.step",
        "kernels.moments -> jaxtrace.errors",
        "jaxtrace.studies.lens.compute -> jaxtrace.studies.dynamics.compute",
        "It could be made acyclic by removing",
    ):
        assert edge in report, report
