"""Modules that a command may import before it works, so that help and wrong words are answered at once."""

import json
import subprocess
import sys

HEAVY = {
    *("jax", "flax", "orbax", "optax", "transformers", "pandas", "matplotlib", "scipy", "sklearn", "pyarrow", "xarray"),
    *("numpy", "PIL", "fsspec", "openai", "safetensors"),
}
# One process for all command lines: a heavy module shows at the first that imports it.
SCRIPT = """
import contextlib, io, json, sys
from jaxtrace.cli.app import run
heavy, *lines = json.loads(sys.argv[1])
for words in lines:
    status = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            run(words.split())
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([words, status, sorted(sys.modules.keys() & {*heavy})]))
"""
HELP = [
    "--help",
    *(
        f"{verb} --help"
        for verb in ("trace", "sweep", "plan", "report", "models", "info", "grade", "estimate", "tuned-lens")
    ),
    *("convert --help", "study --help", "confidence train --help", "confidence apply --help", "lab train --help"),
    *(f"study {name} --help" for name in ("dynamics", "expansion", "interventions", "lens", "patterns", "samplers")),
]
REFUSED = [
    "trace --tpo-p 1",
    "trace --top-p 2",
    "trace --probes heads",
    "trace --task truthfullqa",
    "trace --prompts no.txt",
    "trace --config no.yaml",
    "trace nowhere --text a",
    "report nowhere",
    "info nowhere",
    "convert nowhere out",
    "grade nowhere --out labels.jsonl",
    "estimate nowhere --out scores.parquet",
    "plan --probes heads",
    "tuned-lens demo --steps 0",
    "lab train --width 72 --out out",
    "confidence train nowhere --out out",
    "study dynamics --hdi sum",
    "study dynamics --model demo --task truthfullqa",
]


def output(script, *arguments, cwd):
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_refusals_import_nothing_heavy(tmp_path):
    lines = output(SCRIPT, json.dumps([sorted(HEAVY), *HELP, *REFUSED]), cwd=tmp_path).splitlines()
    expected = [[words, 2 * (words in REFUSED), []] for words in (*HELP, *REFUSED)]
    assert [json.loads(line) for line in lines] == expected


def test_import_jaxtrace_imports_nothing_heavy(tmp_path):
    modules = output("import sys, jaxtrace; print(*sys.modules)", cwd=tmp_path).split()
    assert sorted((HEAVY | {"pydantic", "rich"}) & {*modules}) == []
