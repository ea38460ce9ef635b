"""User-fixable errors: exit status 2, and one line that names the thing and says what to do."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from PIL import Image

import jaxtrace as jt
from tests.models.cases import SEEING

NOT_UTF8 = "caf\udce9"  # as Python decodes the bytes of an argument that are not UTF-8
FEW = ("--limit", 4, "--batch-size", 2, "--max-new-tokens", 4, "--probes", "output")


@pytest.fixture
def refused(jaxtrace, no_plots, tmp_path):
    """Assert that a command is refused in one line that holds all of some words; return the line."""

    def call(*arguments, names=()):
        done = jaxtrace(*arguments)
        assert done.status == 2, done.out + done.err
        line = done.err
        if line.startswith("tracing "):  # bar of a run that has started
            line = line.split("\n", 1)[1]
        assert line.startswith("jaxtrace: ") and line.count("\n") == 1 and line.endswith("\n"), done.err
        assert [name for name in names if str(name) not in line] == [], line
        assert "Traceback" not in done.err
        return line

    return call


def snapshot(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (
            ["nowhere", "--text", "a"],
            ["nowhere: no such directory", "give a checkpoint directory, a hub id, or 'demo'"],
        ),
        (["llama-3.2-1", "--text", "a"], ["no such directory; did you mean 'llama-3.2-1b'?"]),
        (["demo", "--task", "trivia"], ["no task is named 'trivia'; choose one of truthfulqa"]),
        (["demo", "--task", "truthfullqa"], ["did you mean 'truthfulqa'?"]),
        (
            ["demo", "--task", "truthfulqa", "--data", "no.csv"],
            ["no.csv: No such file", "name a file that can be read"],
        ),
        (["demo", "--prompts", "no.txt"], ["no.txt: No such file", "name a file that can be read"]),
        (["demo", "--prompts", "a.pdf"], ["a.pdf: no kind of prompt file ends in '.pdf'", ".txt, .jsonl, .csv"]),
        (["demo", "--text", "a", "--text", " \n"], ["prompt text-1: is empty", "give it some text"]),
        (["demo", "--text", "word " * 300], ["prompt text-0: has", "the context of demo holds 256", "shorten it"]),
        (["demo", "--probes", "output,heads"], ["settings: no probe group 'heads'; there are: all, none, output"]),
        (["demo", "--probes", ""], ["no probe group ''", "there are: all, none, output"]),
        (["demo", "--temperature", "0.7"], ["temperature is 0.7 with sampler 'greedy'; use sampler 'sample'"]),
        (["demo", "--sampler", "entropix", "--top-k", "5"], ["top_k is 5 with sampler 'entropix'"]),
        (["demo", "--sampler", "dslider", "--thresholds", "server"], ["thresholds is 'server' with sampler 'dslider'"]),
        (["demo", "--pause", " ..."], ["pause is ' ...' with sampler 'greedy'; use sampler 'entropix' or 'dslider'"]),
        (["demo", "--sampler", "entropix", "--pause", " one two three"], ["tokens of this model, not one"]),
        (["demo", "--config", "no.yaml"], ["no.yaml: cannot be read", "give a YAML file"]),
        (["demo", "--text", "a", "--prompts", "a.txt"], ["prompts and text exclude each other; keep one"]),
        (["demo", "--data", "a.csv"], ["data is a.csv without a task; name the task too"]),
        (["nowhere/at-all"], ["nothing to trace; give a task, a prompts file, or a text"]),
        (["demo", "--text", NOT_UTF8], ["settings: text is ['caf\\udce9']; write it in UTF-8"]),
        (["demo", "--text", "a", "--stop", NOT_UTF8], ["settings: stop is ['caf\\udce9']; write it in UTF-8"]),
        (["demo", "--template-arg", f"a={NOT_UTF8}"], ["settings: template_arg is", "write it in UTF-8"]),
        (["demo", "--prompts", NOT_UTF8], ["settings: prompts is 'caf\\udce9'; write it in UTF-8"]),
        (["demo", "--config", NOT_UTF8], ["trace: config is 'caf\\udce9'; write it in UTF-8"]),
        ([NOT_UTF8, "--text", "a"], ["settings: model is 'caf\\udce9'; write it in UTF-8"]),
        (["a" * 5000, "--text", "a"], ["no such directory; give a checkpoint directory"]),
        (["demo", "--prompts", "a" * 5000], ["No such file or directory; name a file that can be read"]),
        ([*FEW, "--resume"], ["resume needs the directory of a run; name it with --out"]),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(refused, tmp_path, monkeypatch, arguments, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pdf").touch()
    out = () if "--resume" in arguments else ("--out", "out")
    refused("trace", *arguments, *out, names=names)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("a.txt", "one\n\nthree\n", ["line 2", "delete"]),
        ("a.txt", "", ["holds no prompt", "name a file that does"]),
        ("a.csv", "prompt\none\n\n", ["line 3", "an empty row; delete it"]),
        ("a.jsonl", '{"prompt": "one"}\n\n', ["line 2", "an empty line; delete it"]),
        ("a.jsonl", '{"prompt": "one"}\n{"prompt": ', ["line 2", "not JSON", "write one object or string per line"]),
        ("a.jsonl", '{"prompt": ""}\n', ["line 1", "delete the row or write a text there"]),
        ("a.jsonl", '{"tokens": [1, 5000]}\n', ["id 5000 is outside the vocabulary of 1024"]),
    ],
)
def test_a_broken_prompt_file_is_named_with_its_line(refused, tmp_path, name, content, names):
    (tmp_path / name).write_text(content, encoding="utf-8")
    place = [name] if "tokens" not in content else ["prompt a-0000"]
    refused("trace", "demo", "--prompts", tmp_path / name, "--out", tmp_path / "out", names=[*place, *names])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (
            "temprature: 1\n",
            ["temprature: no such setting; did you mean 'temperature'? there are: ", "seed, model, revision"],
        ),
        ("max_new_tokens: [1\n", ["not valid YAML", "line 2"]),
        ("- model\n", ["not a YAML mapping of settings"]),
        ("", ["not a YAML mapping of settings"]),
        ("1: 2\n", ["1: no such setting; there are: "]),
        ("max_new_tokens: many\n", ["max_new_tokens is many; it must be a valid integer"]),
        ("[" * 100_000, ["not valid YAML"]),
        ("seed: !!int x\n", ["not valid YAML (the tag '!!int'; write the value without a tag)"]),
        ("seed: 1\nseed: 2\n", ["not valid YAML (two entries are named 'seed'; keep one)"]),
        ("probes: [heads]\n", ["no probe group 'heads'", "there are: all"]),
    ],
)
def test_a_broken_file_of_settings_is_named(refused, tmp_path, content, names):
    file = tmp_path / "mine.yaml"
    file.write_text(content, encoding="utf-8")
    refused("trace", "--config", file, "--out", tmp_path / "out", names=[file, *names])
    assert not (tmp_path / "out").exists()


def test_a_directory_with_another_run_is_not_overwritten(refused, jaxtrace, tmp_path):
    run = tmp_path / "run"
    assert jaxtrace("trace", "demo", *FEW, "--out", run).status == 0
    before = snapshot(run)
    refused(
        "trace", "demo", *FEW, "--out", run, names=[run, "already holds a run", "resume it, or name another directory"]
    )
    names = [run, "config.seed is 0 in the run there and 1 in this one", "resume with the same configuration"]
    refused("trace", "demo", *FEW, "--seed", 1, "--out", run, "--resume", names=names)
    assert snapshot(run) == before


def test_a_directory_with_other_files_is_not_written_to(refused, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    refused(
        "trace", "demo", *FEW, "--out", tmp_path, names=[tmp_path, "holds files that are no trace", "name an empty"]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_directory_is_refused(refused, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    refused("trace", "demo", *FEW, "--out", file, names=[file, "is a file; name a directory"])
    refused(
        "trace", "demo", *FEW, "--out", file / "run", names=[file, "Not a directory", "name a directory that can be"]
    )
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_directory_without_a_checkpoint_is_refused(refused, tmp_path):
    names = [tmp_path, "holds no config.json", "give a Hugging Face checkpoint directory, a GGUF file or a hub id"]
    refused("trace", tmp_path, "--text", "a", "--out", tmp_path / "out", names=names)
    refused("info", tmp_path, names=names)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}), encoding="utf-8")
    refused("info", tmp_path, names=[tmp_path, "'mamba' is not supported: it has state-space"])


def test_report_refuses_a_directory_without_a_trace(refused, tmp_path):
    refused("report", tmp_path, names=[f"{tmp_path}: not a trace directory", "name one that does"])
    nowhere = tmp_path / "nowhere"
    refused("report", nowhere, names=[f"{nowhere}: No such file or directory; name the directory of a trace"])
    assert not list(tmp_path.iterdir())


def test_report_names_a_page_that_cannot_be_written(refused, jaxtrace, tmp_path):
    assert jaxtrace("trace", "demo", *FEW, "--out", tmp_path / "run").status == 0
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    page = tmp_path / "file" / "page.html"
    refused("report", tmp_path / "run", "--out", page, names=[tmp_path / "file", "name another place"])


def test_a_full_disk_keeps_finished_prompts(refused, jaxtrace, tmp_path, monkeypatch):
    parts = []

    def write_table(table, file, whole=pq.write_table, **options):
        parts.append(file.name)
        if len(parts) >= 5:
            file.write(b"PAR1")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(table, file, **options)

    run = ("trace", "demo", *FEW, "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", write_table)
        names = [tmp_path / "run", "No space left on device", "already finished stay readable"]
        refused(*run, names=names)
    trace = jt.open(tmp_path / "run")
    assert len(trace.rows) == 2 and trace.info["complete"] is False
    assert not list(tmp_path.rglob("*.tmp"))
    assert jaxtrace(*run, "--resume").status == 0
    assert len(jt.open(tmp_path / "run").rows) == 4


def test_plots_that_cannot_be_written_leave_the_trace_complete(refused, tmp_path, monkeypatch):
    def write_plots(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "lens_profile.png")

    monkeypatch.setattr("jaxtrace.figures.write_plots", write_plots)
    refused("trace", "demo", *FEW, "--out", tmp_path, names=["lens_profile.png: No space left on device"])
    assert jt.open(tmp_path).info["complete"] is True


def test_an_unavailable_kernel_implementation_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXTRACE_KERNELS", "abacus")
    sampled = ("--sampler", "sample", "--temperature", 0.123)  # not compiled before, so that kernels are chosen again
    refused(
        "trace",
        "demo",
        *FEW,
        *sampled,
        "--out",
        tmp_path / "run",
        names=["abacus: no such implementation", "choose from"],
    )
    assert not (tmp_path / "run").exists()


def test_ctrl_c_keeps_finished_prompts(tmp_path):
    """A process of its own, interrupted in the middle of a long run."""
    prompts, run = tmp_path / "long.txt", tmp_path / "run"
    prompts.write_text("Question: What is 3 + 5? Answer:\n" * 5000, encoding="utf-8")
    options = ["--prompts", prompts, "--max-new-tokens", "100", "--batch-size", "1", "--probes", "output", "--out", run]
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxtrace.cli", "trace", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    try:
        until = time.monotonic() + 120
        while not (run / "prompts" / "part-00000.parquet").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    trace = jt.open(run)
    kept = f"{len(trace.rows)} of 5000 prompts are kept in {run}; continue with --resume --out {run}"
    assert errors.splitlines()[-1] == f"jaxtrace: interrupted; {kept}"
    assert 1 <= len(trace.rows) < 5000 and trace.info["complete"] is False
    assert not list(run.rglob("*.tmp"))


def test_an_image_for_a_model_without_an_image_encoder_is_refused(refused, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    refused("trace", "demo", "--text", "hi", "--image", tmp_path / "a.png", "--out", out, names=["demo sees none"])
    assert not out.exists()


def test_a_broken_image_is_refused_before_work_begins(refused, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SEEING), encoding="utf-8")
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"tokens": [SEEING["image_token_index"], 1], "images": "a.png"}), encoding="utf-8"
    )
    out = tmp_path / "out"
    refused("trace", tmp_path, "--random", "--prompts", tmp_path / "p.jsonl", "--out", out, names=["a.png"])
    assert not out.exists()
