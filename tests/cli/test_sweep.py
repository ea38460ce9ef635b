"""`jaxtrace sweep`."""

import json

import jax
import pytest
import yaml

from jaxtrace.model import Model

FEW = {"limit": 2, "max_new_tokens": 2, "batch_size": 2, "probes": "output"}


@pytest.fixture
def sweep(jaxtrace, tmp_path, monkeypatch):
    """Run `jaxtrace sweep` on a file of some fields; compiled programs are kept."""
    monkeypatch.setattr(jax, "clear_caches", lambda: None)

    def call(*options, **fields):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({"models": "demo", "settings": FEW} | fields))
        return jaxtrace("sweep", file, "--out", tmp_path / "out", *options)

    return call


def test_a_sweep_runs_once_and_names_cells_of_another_file(sweep, tmp_path):
    done = sweep()
    assert done.status == 0, done.err
    first, last = done.out.splitlines()
    assert first.startswith("model=demo/task=own/run=greedy-output-") and ": complete, 2 prompts, 4 tokens, " in first
    assert last == f"{tmp_path / 'out'}: complete, 1 cell"
    assert done.err == ""
    again = sweep()
    assert again.out.splitlines() == [last]
    other = sweep(settings=FEW | {"max_new_tokens": 1})
    assert f"{first.split(': ')[0]}: not in this sweep file, and left unchanged" in other.out.splitlines()


def test_failed_cells_are_reported(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "generate_rows", lambda *_: (_ for _ in ()).throw(ValueError("no luck")))
    done = sweep(samplers=["greedy", {"temperature": 2.0}])
    assert done.status == 1
    assert done.err == "jaxtrace: 2 of 2 cells failed; run the same command again to retry them\n"
    assert [line.split(": ", 1)[1] for line in done.out.splitlines()] == ["failed, ValueError: no luck"] * 2
    cells = json.loads((tmp_path / "out" / "sweep.json").read_text())["cells"]
    assert {cell["error"] for cell in cells.values()} == {"ValueError: no luck"}


def test_a_dry_run_writes_nothing(sweep, tmp_path):
    done = sweep("--dry-run", "--bandwidth", "20", "--tflops", "0.5", samplers={"temperature": 2.0}, seeds=[0, 1])
    assert done.status == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    assert "t2-seed0-output-" in done.out and "2 cells" in done.out
    assert "from 20 GB/s and 0.5 TFLOP/s a device (as given)" in done.out
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_cannot_run_is_refused(sweep, jaxtrace, tmp_path):
    done = sweep(models=["demo", "./nowhere"], tasks={"text": "Where"})
    assert done.status == 2 and done.err.count("\n") == 1
    assert "./nowhere on text: ./nowhere: no such directory" in done.err
    assert not (tmp_path / "out").exists()
    done = jaxtrace("sweep", tmp_path / "gone.yaml")
    assert done.status == 2 and "gone.yaml: No such file or directory" in done.err


def test_an_interrupted_sweep_says_how_to_resume(sweep, monkeypatch):
    monkeypatch.setattr(Model, "generate_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    done = sweep()
    assert done.status == 130
    assert "run the same command again to resume" in done.err
