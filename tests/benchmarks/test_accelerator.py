"""The script for one GPU, run without a GPU: every part works in the interpreter, and the report says so."""

import os
import subprocess
import sys

import pytest
from jaxtrace.kernels.gpu_tiles import too_old

SCRIPT = "benchmarks/accelerator.sh"
KERNELS = ("softmax_moments", "unembed_moments", "decode_attention", "prefill_attention", "head_dispersion")
PARTS = ["suite", "decode-tiny", *(f"kernels-{op}" for op in KERNELS), "score-tiny", "block-sizes"]


def run(root, *words):
    """Run the script with this Python."""
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(["bash", SCRIPT, *words], cwd=root, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(too_old() is not None, reason=f"GPU kernels: {too_old()}")
def test_every_part_works_in_the_interpreter(pytestconfig, tmp_path):
    out = tmp_path / "report"
    done = run(pytestconfig.rootpath, "--tiny", "--seconds", "3000", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    report = (out / "report.md").read_text()
    assert "No GPU was used" in report and "0 parts failed" in report
    assert [line.removeprefix("## ") for line in report.splitlines() if line.startswith("## ")] == PARTS
    for part in PARTS[1:]:
        assert (out / f"{part}.md").read_text() in report


def test_an_unknown_option_is_one_line(pytestconfig):
    done = run(pytestconfig.rootpath, "--fast")
    assert done.returncode == 2
    assert done.stderr == "--fast: is no option; give --tiny, --seconds N or --out DIRECTORY\n"


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(too_old() is None, reason="this JAX has GPU kernels")
def test_an_old_jax_is_told_what_to_install(pytestconfig, tmp_path):
    done = run(pytestconfig.rootpath, "--tiny", "--out", str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "pip install -U 'jax[cuda13]>=0.12'" in done.stderr
