"""The package is what its metadata say."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {"jaxtrace"}
    for top, name in (("jaxtrace", "jaxtrace"), ("kernels", "jaxtrace.kernels")):
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(ROOT / top).parts]))
    assert listed == found


def test_kernels_import_nothing_of_jaxtrace():
    for file in (ROOT / "kernels").rglob("*.py"):
        assert not [module for module, level in _imports(file) if module.startswith("jaxtrace") and not level], file


def test_models_and_kernels_do_not_know_what_is_downstream():
    for room, downstream in {
        "models": ("parallel", "checkpoints", "tracing", "store", "report", "run", "cli"),
        "parallel": ("checkpoints", "tracing", "tasks", "lab", "store", "report", "run", "cli"),
        "checkpoints": ("tracing", "store", "report", "run", "cli"),
        "tasks": ("models", "checkpoints", "tracing", "store", "report", "run", "cli"),
        "tracing": ("planning", "store", "grading", "studies", "confidence", "report", "run", "cli"),
        "planning": ("store", "studies", "confidence", "report", "run", "cli"),
        "store": ("grading", "studies", "confidence", "report", "run", "cli"),
        "statistics": ("tracing", "tasks", "store", "grading", "studies", "confidence", "report", "run", "cli"),
        "grading": ("store", "studies", "confidence", "report", "run", "cli"),
        "studies": ("planning", "confidence", "cli"),
        "confidence": ("planning", "run", "cli"),
        "report": ("run", "cli"),
    }.items():
        for file in (ROOT / "jaxtrace" / room).rglob("*.py"):
            rooms = {module.split(".")[1] for module, _ in _imports(file) if module.startswith("jaxtrace.")}
            if file.name == "trace.py":
                rooms -= {"store"}  # `Trace.save`
            assert not rooms & set(downstream), file


def _imports(file: Path) -> list[tuple[str, int]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [(node.module or "", node.level) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return found + [(a.name, 0) for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
