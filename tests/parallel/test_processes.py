"""Several processes, joined over Gloo, give the trace of a single one; prompts lost by a dead process are resumed."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace import ConfigError, DecoderConfig
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.parallel.automatic import resolve_mesh
from jaxtrace.run import prepare, run_config, start
from jaxtrace.traces import partition_of
from tests.compiler_flags import FLAGS

pytestmark = pytest.mark.slow

STOP = "and and and and"  # the random model repeats the prompts' last word
PROMPTS = [f"{name} has {count} red apples and" for count in range(6) for name in ("Ann", "Bo")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a directory with a two-layer config and the demo's tokenizer; its weights are random."""
    folder = tmp_path_factory.mktemp("model")
    for file in demo_path().glob("*.json"):
        shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return folder


def environment(devices):
    flags = f"--xla_force_host_platform_device_count={devices} {FLAGS}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def arguments(model, out, *options):
    return ("trace", model, "--random", "--prompts", model / "prompts.txt", "--out", out, "--probes",
            "output,attention,dispersion", "--batch-size", 4, "--max-new-tokens", 6,
            "--stop", STOP, *options)  # fmt: skip


class Job:
    """One command that runs in several processes."""

    def __init__(self, count, *command):
        with socket.socket() as one:
            one.bind(("localhost", 0))
            port = one.getsockname()[1]
        joining = ("--coordinator", f"localhost:{port}", "--processes", count, "--process")
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "jaxtrace.cli", *map(str, (*command, *joining, process))],
                env=environment(8 // count),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for process in range(count)
        ]

    def wait(self):
        """Return the exit statuses, standard outputs and standard errors."""
        outputs = [process.communicate(timeout=300) for process in self.processes]
        return [process.returncode for process in self.processes], *zip(*outputs, strict=True)


@pytest.fixture(scope="module")
def single(model, tmp_path_factory):
    """Return the function that traces in one process on one device: scored or not."""

    @functools.cache
    def traced(score):
        settings = run_config(
            model=str(model), random=True, prompts=model / "prompts.txt", out=tmp_path_factory.mktemp("single") / "run",
            probes=("output", "attention", "dispersion"), batch_size=4, max_new_tokens=6, score=score, mesh=None,
            stop=() if score else STOP,
        )  # fmt: skip
        return prepare(settings).trace()

    return traced


def assert_same(actual, expected):
    assert [row.prompt.text for row in actual.rows] == PROMPTS
    for one, other in zip(actual.rows, expected.rows, strict=True):
        assert (one.stop, one.text) == (other.stop, other.text)
        assert one.metrics.keys() == other.metrics.keys()
        for name, metric in one.metrics.items():
            np.testing.assert_allclose(metric, other.metrics[name], atol=1e-4, rtol=1e-5, err_msg=name)


def parts(directory):
    return {path.name for path in (directory / "prompts").glob("part-*.parquet")}


@pytest.mark.nightly
def test_run_resumes_after_one_of_two_processes_dies(model, single, tmp_path):
    command = arguments(model, tmp_path, "--mesh", "data=2,model=4")
    job = Job(2, *command)
    began = time.monotonic()
    while not parts(tmp_path) and time.monotonic() < began + 200:
        time.sleep(0.01)
    job.processes[1].kill()
    statuses, _, errors = job.wait()
    assert statuses[1] == -9
    if statuses[0] == -signal.SIGABRT:  # on a busy machine JAX misses the heartbeat before a collective fails
        assert "another task died" in errors[0], errors[0]
    else:
        assert statuses[0] == 1 and "another process failed or ended" in errors[0], errors[0]
        assert "start all processes again (trace: with --resume)" in errors[0].splitlines()[-1]
    before = parts(tmp_path)
    assert before and not jt.open(tmp_path).info["complete"]

    statuses, printed, errors = Job(2, *command, "--resume").wait()
    assert statuses == [0, 0], errors
    assert "Trace of" in printed[0] and "Trace of" not in printed[1]  # Gloo prints other lines
    assert "12/12 prompts" in errors[0]
    trace = jt.open(tmp_path)
    assert trace.info["complete"] and before < parts(tmp_path)
    assert {name.split("-")[1] for name in parts(tmp_path)} == {"000", "001"}
    assert_same(trace, single(False))
    assert {(row.stop, row.length) for row in trace.rows} == {("stop_string", 4)}


@pytest.mark.nightly
def test_sigterm_ends_all_processes_with_finished_prompts_kept(model, single, tmp_path):
    """JAX's preemption service, which each process starts, would only take a note."""
    command = arguments(model, tmp_path, "--mesh", "data=2,model=4", "--batch-size", "2")
    job = Job(2, *command)
    began = time.monotonic()
    while not parts(tmp_path) and time.monotonic() < began + 200:
        time.sleep(0.01)
    for process in job.processes:
        process.terminate()
    statuses, _, errors = job.wait()
    assert 143 in statuses and set(statuses) <= {143, -signal.SIGABRT}, (statuses, errors)
    ended = errors[statuses.index(143)].splitlines()[-1]
    assert ended.startswith(f"jaxtrace: interrupted; finished prompts are kept in {tmp_path}; continue with --resume")
    statuses, _, errors = Job(2, *command, "--resume").wait()
    assert statuses == [0, 0], errors
    assert_same(jt.open(tmp_path), single(False))


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.nightly)])
def test_sweep_of_a_model_split_over_processes(count, model, single, tmp_path):
    """Each of two processes has half of the batch; two of four processes share the rows of a half."""
    cells = {
        "models": {"model": str(model), "random": True},
        "tasks": {"prompts": str(model / "prompts.txt")},
        "probes": "output,attention,dispersion",
        "settings": {"score": True, "batch_size": 4, "mesh": "data=2,model=4"},
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(cells))  # JSON is YAML
    statuses, _, errors = Job(count, "sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "study").wait()
    assert statuses == [0] * count, errors
    (run,) = jt.open(tmp_path / "study").runs
    folder = tmp_path / "study" / "prompts" / partition_of(**run.keys)
    assert {path.name.split("-")[1] for path in folder.iterdir()} == {f"{process:03}" for process in range(count)}
    (record,) = json.loads((tmp_path / "study" / "sweep.json").read_text())["cells"].values()
    assert (record["state"], record["rows"]) == ("complete", len(PROMPTS))
    assert_same(jt.open(tmp_path / "study"), single(True))


def test_error_of_one_process_ends_all(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    statuses, _, errors = Job(2, *arguments(model, tmp_path, "--mesh", "data=2,model=4")).wait()
    assert statuses[0] == 2 and statuses[1] in (2, -signal.SIGABRT)
    assert "holds files that are no trace" in errors[0].splitlines()[-1], errors


def test_more_processes_than_rows_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="1 rows at once are fewer than the 2 processes; raise batch_size"):
        start(run_config(text="Hello"), None, None, ["Hello"], "")


def test_mesh_without_a_device_of_every_process_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="some of the 2 processes have no device in it; use all"):
        resolve_mesh("model=1", DecoderConfig("llama", 32, 64, 4, 8, 2, 8, 96, 64), 4)


def test_missing_cluster_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "jaxtrace.cli", "trace", "demo", "--distributed"],
        env=environment(1), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    assert "JAX recognises no cluster here" in done.stderr.splitlines()[-1], done.stderr
