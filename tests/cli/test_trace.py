"""`jaxtrace trace`, `report` and `info` on the embedded model."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file, save_file

import jaxtrace as jt
from jaxtrace.checkpoints.embedded import demo_path, demo_prompts
from jaxtrace.memory import format_bytes
from jaxtrace.model import Model, open_model_checkpoint
from jaxtrace.planning.cost import parameter_count, trace_bytes
from jaxtrace.run import prepare
from jaxtrace.schema import METRICS
from jaxtrace.settings.run import RunConfig
from jaxtrace.traces import TraceWriter
from tests.traces.damage import edit_run

QUESTIONS = ["Question: What is 3 + 5? Answer:", "Where does", "Question: What is 2 + 2?"]
PLOTS = {"entropy_steps.png", "attention_map.png", "layer_profile.png", "lens_profile.png"}
TABLES = {"tokens", "layers", "prompts"}
FEW = ("--max-new-tokens", 4)
OUTPUT = (*FEW, "--probes", "output")
SAMPLED = ("--max-new-tokens", 8, "--sampler", "sample", "--temperature", 0.7, "--probes", "output,hidden")


@pytest.fixture(scope="module")
def demo(jaxtrace, tmp_path_factory):
    """Directory of a run with every probe, and the command's output."""
    directory = tmp_path_factory.mktemp("demo") / "run"
    done = jaxtrace("trace", "demo", "--limit", 3, *FEW, "--out", directory)
    assert done.status == 0, done.err
    return directory, done


@pytest.fixture
def traced(jaxtrace, no_plots, tmp_path):
    """Trace the demo model into a new directory and return the trace: traced(option, …)."""

    def run(*options):
        directory = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        done = jaxtrace("trace", "demo", *options, "--out", directory)
        assert done.status == 0, done.err
        return jt.open(directory)

    return run


def test_notes_on_the_checkpoint_are_printed_once_and_stored(jaxtrace, no_plots, tmp_path):
    model = shutil.copytree(demo_path(), tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    save_file(weights | {"score.weight": np.ones((1, 2), np.float32)}, model / "model.safetensors")
    note = "weights of other heads are ignored: score.weight"
    done = jaxtrace("trace", model, "--text", "Mia has", *OUTPUT, "--out", tmp_path / "run")
    assert (done.status, done.err.count(f"jaxtrace: {model}: {note}\n")) == (0, 1)
    assert jt.open(tmp_path / "run").info["notes"] == [note]
    for verb in (("info", model), ("convert", model, tmp_path / "converted")):
        assert jaxtrace(*verb).err.count(note) == 1


def tokens(trace):
    return [row.metrics["token"].tolist() for row in trace.rows]


def assert_same_trace(got, want):
    assert tokens(got) == tokens(want)
    assert [row.prompt for row in got.rows] == [row.prompt for row in want.rows]
    for a, b in zip(got.rows, want.rows, strict=True):
        assert a.metrics.keys() == b.metrics.keys()
        for name, values in b.metrics.items():
            np.testing.assert_allclose(a.metrics[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_run_writes_tables_plots_and_its_settings(demo):
    directory, _ = demo
    assert {path.name for path in directory.iterdir()} == PLOTS | TABLES | {"run.json"}
    for name in PLOTS:
        assert (directory / name).read_bytes().startswith(b"\x89PNG")
    assert [pq.read_table(directory / table).num_rows for table in ("prompts", "tokens", "layers")] == [3, 12, 84]
    run = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    assert run["complete"] is True
    assert RunConfig.model_validate(run["config"]) == RunConfig(limit=3, max_new_tokens=4)
    packages = {"jaxtrace", "jax", "flax", "numpy", "transformers", "tokenizers"}
    assert run["info"]["versions"].keys() == {"python", *packages}
    assert run["info"]["dtype"] == "float32"
    assert run["info"]["checkpoint"] == open_model_checkpoint("demo").fingerprint()
    assert len(run["info"]["checkpoint"]) == 64


def test_a_run_equals_the_trace_of_the_api(demo):
    got = jt.open(demo[0])
    want = jt.load("demo").generate(demo_prompts()[:3], max_new_tokens=4)
    assert_same_trace(got, want)
    assert set(got.rows[0].metrics) == set(jt.Probes.all().metrics) - {"learned_sink_mass"}
    assert got.info["complete"] is True


def test_a_run_prints_its_progress_summary_and_compilations(demo):
    directory, done = demo
    assert "3/3 prompts" in done.err and "mean entropy" in done.err
    words = done.out.split()
    assert words[words.index("prompts") + 2] == "3" and words[words.index("tokens") + 2] == "12"
    assert f"jaxtrace report {directory}" in done.out.replace("\n", "")
    assert re.search(r"compiled \d+ programs in \d+\.\d s", done.out)


def test_the_first_line_says_what_the_run_does(jaxtrace, no_plots, tmp_path):
    demo = ("demo", "--limit", 2, *FEW, "--probes", "output")
    done = jaxtrace("trace", *demo, "--out", tmp_path / "a")
    assert done.out.splitlines()[0] == (
        "demo: float32, no chat template, prompt tokens: 15 to 17 (2 prompts), stop tokens: '</s>' (2), sampler: greedy"
    )
    options = ("--dtype", "bfloat16", "--sampler", "sample", "--temperature", 0.7, "--top-k", 5)
    done = jaxtrace("trace", *demo, *options, "--out", tmp_path / "b")
    line = done.out.splitlines()[0]
    assert line.startswith("demo: bfloat16, ") and line.endswith(", sampler: sample (temperature 0.7 top_k 5)")
    assert jt.open(tmp_path / "b").info["dtype"] == "bfloat16"
    done = jaxtrace("trace", "demo", "--text", "a b", "--score", "--probes", "output", "--out", tmp_path / "c")
    assert re.fullmatch(r"demo: float32, .*, prompt tokens: \d+ \(1 prompt\), scored", done.out.splitlines()[0])


def test_ignored_settings_of_the_checkpoint_are_named_and_recorded(jaxtrace, no_plots, tmp_path):
    shutil.copytree(demo_path(), tmp_path / "model")
    generation = {"eos_token_id": 2, "repetition_penalty": 1.1, "do_sample": True, "temperature": 0.6, "top_k": 40}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    run = ("trace", tmp_path / "model", "--text", "Where does", *FEW, "--probes", "output")
    done = jaxtrace(*run, "--out", tmp_path / "greedy")
    assert done.out.splitlines()[0].endswith(
        "; ignored from generation_config.json: repetition_penalty 1.1, do_sample true, temperature 0.6, top_k 40"
    )
    done = jaxtrace(*run, "--sampler", "sample", "--temperature", 0.6, "--out", tmp_path / "sampled")
    assert done.out.splitlines()[0].endswith("; ignored from generation_config.json: repetition_penalty 1.1, top_k 40")
    ignored = jt.open(tmp_path / "sampled").info["ignored_generation_settings"]
    assert ignored == {"repetition_penalty": 1.1, "top_k": 40}


def test_the_answers_of_a_few_prompts_are_printed(demo, jaxtrace, no_plots, tmp_path):
    directory, done = demo
    for row in jt.open(directory).rows:
        assert f"{row.prompt.id}\n" in done.out
    assert done.out.count("least certain, in nats: ") == 3 and "«" in done.out
    options = ("--max-new-tokens", 1, "--probes", "output")
    many = jaxtrace("trace", "demo", "--limit", 6, *options, "--out", tmp_path / "many")
    scored = jaxtrace("trace", "demo", "--limit", 1, "--score", "--probes", "output", "--out", tmp_path / "scored")
    assert "least certain" not in many.out + scored.out and (many.status, scored.status) == (0, 0)


def test_another_dtype_does_not_resume_a_run(jaxtrace, no_plots, tmp_path):
    run = ("trace", "demo", "--limit", 1, *OUTPUT, "--out", tmp_path / "run")
    assert jaxtrace(*run).status == 0
    done = jaxtrace(*run, "--resume", "--dtype", "bfloat16")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert 'config.dtype is null in the run there and "bfloat16" in this one' in done.err
    assert jaxtrace("trace", "demo", *OUTPUT, "--dtype", "int8").err == (
        "jaxtrace: settings: dtype is int8; it must be 'float32', 'bfloat16' or 'float16'\n"
    )


def test_a_run_of_an_older_version_resumes_where_new_settings_have_their_defaults(jaxtrace, no_plots, tmp_path):
    run = ("trace", "demo", "--limit", 1, *OUTPUT, "--out", tmp_path / "run")
    assert jaxtrace(*run).status == 0

    def make_older(run):
        del run["config"]["shots"], run["config"]["dtype"], run["info"]["dtype"]

    edit_run(tmp_path / "run", make_older)
    assert jaxtrace(*run, "--resume").status == 0


def test_prompts_with_non_finite_logits_are_named(jaxtrace, no_plots, tmp_path, monkeypatch):
    from_checkpoint = Model.from_checkpoint

    def poisoned(*args, **options):
        model = from_checkpoint(*args, **options)
        word = model.tokenizer.encode("Where", chat=False)[-1]
        params = model.params | {"embedding": model.params["embedding"].at[word].set(np.nan)}
        params["unembedding"] = model.params.get("unembedding", model.params["embedding"])
        return dataclasses.replace(model, params=params, config=dataclasses.replace(model.config, tied=False))

    monkeypatch.setattr(Model, "from_checkpoint", poisoned)
    texts = [option for text in QUESTIONS for option in ("--text", text)]
    done = jaxtrace("trace", "demo", *texts, *OUTPUT, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert "logits are not finite, and recorded as NaN, in 1 of 3 prompts: text-1\n" in done.out
    assert [row.stop == "not_finite" for row in jt.open(tmp_path / "run").rows] == [False, True, False]


def test_texts_are_traced_in_order(traced):
    trace = traced("--text", QUESTIONS[0], "--text", QUESTIONS[1], *OUTPUT)
    assert [row.prompt.text for row in trace.rows] == QUESTIONS[:2]
    assert [row.prompt.id for row in trace.rows] == ["text-0", "text-1"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.txt", "\n".join(QUESTIONS)),
        ("mine.jsonl", "\n".join(json.dumps({"prompt": text}) for text in QUESTIONS)),
        ("mine.csv", "question,level\n" + "\n".join(f'"{text}",1' for text in QUESTIONS)),
    ],
)
def test_prompt_files_of_each_kind_are_traced(traced, tmp_path, name, content):
    (tmp_path / name).write_text(content + "\n", encoding="utf-8")
    trace = traced("--prompts", tmp_path / name, "--limit", 2, *OUTPUT)
    assert [row.prompt.text for row in trace.rows] == QUESTIONS[:2]
    assert [row.prompt.id for row in trace.rows] == ["mine-0000", "mine-0001"]


def test_a_task_reads_its_data_file(traced, tmp_path):
    stories = tmp_path / "stories.txt"
    stories.write_text(f"{'one two ' * 20}\n<|endoftext|>\n{'three four ' * 20}\n", encoding="utf-8")
    trace = traced("--task", "tinystories", "--data", stories, "--limit", 2, *OUTPUT)
    assert [row.prompt.text.split() for row in trace.rows] == [["one", "two"] * 10, ["three", "four"] * 10]


def test_score_traces_the_texts_themselves(traced):
    row = traced("--score", "--text", QUESTIONS[0], "--probes", "output").rows[0]
    assert (row.stop, row.text) == ("scored", QUESTIONS[0])
    np.testing.assert_array_equal(row.metrics["token"], [*row.prompt_tokens[1:], -1])
    assert np.isfinite(row.metrics["logprob"][:-1]).all() and np.isnan(row.metrics["logprob"][-1])


def test_probes_record_only_what_they_name(traced):
    trace = traced("--probes", "output, lens", "--limit", 2, *FEW)
    assert set(trace.rows[0].metrics) == set(jt.Probes.of("output", "lens").metrics)
    assert {METRICS[name].group for name in trace.rows[0].metrics} == {"", "output", "lens"}


def test_no_probes_record_tokens_alone(jaxtrace, tmp_path):
    assert jaxtrace("trace", "demo", "--probes", "none", "--limit", 2, *FEW, "--out", tmp_path / "run").status == 0
    assert set(jt.open(tmp_path / "run").rows[0].metrics) == {"token"}
    assert not list(tmp_path.rglob("*.png"))


def test_equal_seeds_draw_equal_tokens(traced):
    options = ("--limit", 2, *SAMPLED)
    first, again, other = (traced(*options, "--seed", seed) for seed in (3, 3, 4))
    assert_same_trace(again, first)
    assert tokens(other) != tokens(first)


def test_a_file_of_settings_and_an_option_over_it(traced, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"limit": 2, "max_new_tokens": 2, "probes": ["output"]}), encoding="utf-8")
    assert [row.length for row in traced("--config", file).rows] == [2, 2]
    trace = traced("--config", file, "--max-new-tokens", 3)
    assert [row.length for row in trace.rows] == [3, 3]
    assert trace.info["probes"] == ["output"]


def test_a_text_replaces_the_task_of_the_file(traced, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"task": "tinystories", "data": "nowhere.txt"}), encoding="utf-8")
    trace = traced("--config", file, "--text", QUESTIONS[0], *OUTPUT)
    assert trace.rows[0].prompt.text == QUESTIONS[0]


def test_a_run_without_out_goes_to_a_new_directory_in_runs(jaxtrace, no_plots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert jaxtrace("trace", "--limit", 2, *OUTPUT).status == 0
    (directory,) = Path("runs").iterdir()
    assert directory.name.startswith("demo-")
    assert len(jt.open(directory).rows) == 2


@pytest.mark.parametrize(
    "options", [(*SAMPLED, "--seed", 3), ("--score", "--probes", "output")], ids=["generate", "score"]
)
def test_an_interrupted_run_resumes_to_the_same_trace(jaxtrace, traced, tmp_path, monkeypatch, options):
    run = ("--limit", 6, "--batch-size", 2, *options)
    whole = traced(*run)
    directory = tmp_path / "cut"

    def write(self, rows, whole=TraceWriter.write):
        if self.done:
            raise KeyboardInterrupt
        whole(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(TraceWriter, "write", write)
        done = jaxtrace("trace", "demo", *run, "--out", directory)
    assert done.status == 130
    message = done.err.splitlines()[-1]
    assert (
        message
        == f"jaxtrace: interrupted; 2 of 6 prompts are kept in {directory}; continue with --resume --out {directory}"
    )
    trace = jt.open(directory)
    assert trace.info["complete"] is False
    assert tokens(trace) == tokens(whole)[:2]

    done = jaxtrace("trace", "demo", *run, "--out", directory, "--resume")
    assert done.status == 0, done.err
    assert "6/6 prompts" in done.err
    assert_same_trace(jt.open(directory), whole)
    assert jt.open(directory).info["complete"] is True

    for table in TABLES:  # a damaged part, deleted as its message advises
        (directory / table / "part-00001.parquet").unlink()
    assert jaxtrace("trace", "demo", *run, "--out", directory, "--resume").status == 0
    assert_same_trace(jt.open(directory), whole)


def test_finished_rows_of_an_incomplete_part_are_kept(monkeypatch, tmp_path):
    """The run stops after four of six prompts, in parts of three."""
    config = RunConfig(limit=6, batch_size=3, score=True, probes=("output",), out=tmp_path / "run")
    score_rows = Model.score_rows

    def cut_off(*args):
        rows = [row for batch in score_rows(*args) for row in batch]
        yield rows[:1]
        yield rows[1:4]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Model, "score_rows", cut_off)
        with pytest.raises(KeyboardInterrupt):
            prepare(config).trace()
    assert [path.name for path in sorted((tmp_path / "run" / "tokens").iterdir())] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert [row.prompt for row in jt.open(tmp_path / "run").rows] == demo_prompts()[:4]
    resumed = prepare(config, resume=True)
    assert resumed.done == 4
    assert [row.prompt for row in resumed.trace().rows] == demo_prompts()[:6]


def test_an_error_of_an_observer_loses_and_repeats_no_row(tmp_path):
    config = RunConfig(limit=4, batch_size=2, max_new_tokens=1, probes=("output",), out=tmp_path / "run")

    def on_rows(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config).trace(on_rows=on_rows)
    assert [row.prompt for row in jt.open(tmp_path / "run").rows] == demo_prompts()[:2]
    assert [row.prompt for row in prepare(config, resume=True).trace().rows] == demo_prompts()[:4]


def test_report_is_self_contained(jaxtrace, demo):
    directory, _ = demo
    done = jaxtrace("report", directory, "--out", directory.parent / "pages" / "page.html")
    page = directory.parent / "pages" / "page.html"
    assert (done.status, done.out, done.err) == (0, f"{page}\n", "")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "data:image/png;base64," in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_report_goes_to_the_trace_directory_by_default(jaxtrace, traced, tmp_path):
    traced("--limit", 2, *OUTPUT)
    assert jaxtrace("report", tmp_path / "run-0").status == 0
    assert (tmp_path / "run-0" / "report.html").stat().st_size > 1000


def test_info_counts_the_bytes_of_a_trace(jaxtrace, demo):
    done = jaxtrace("info", "demo")
    assert done.status == 0
    model = jt.load("demo")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert parameter_count(model.config) == parameters
    assert f"{parameters:,}" in done.out

    row = jt.open(demo[0]).rows[0]
    by_group = trace_bytes(model.config, jt.Probes.all())
    for group, size in by_group.items():
        names = [name for name in row.metrics if METRICS[name].group == group]
        assert sum(row.metrics[name].nbytes for name in names) == size * row.length, group
    assert f"{sum(by_group.values()) / 1024:.4g} KiB" in done.out
    for group in ("output", "attention", "dispersion", "hidden"):
        assert f"{group} {format_bytes(by_group[group])}" in " ".join(done.out.split())
