"""Options of the command line: made from settings, read like YAML and Python, refused in one line."""

import re
from pathlib import Path

import pytest
import yaml

from jaxtrace.cli import app
from jaxtrace.cli.options import Arguments, Command, command
from jaxtrace.cli.trace import trace
from jaxtrace.schema import STEP_METRICS
from jaxtrace.settings.run import RunConfig, run_config
from jaxtrace.settings.sampling import SAMPLERS

# A value for each field that differs from its default, as YAML holds it, and as words of a command line.
VALUES = {
    "model": ("nowhere", ["nowhere"]),
    "revision": ("v1.0", ["--revision", "v1.0"]),
    "random": (True, ["--random"]),
    "dtype": ("bfloat16", ["--dtype", "bfloat16"]),
    "lens": ("lens", ["--lens", "lens"]),
    "ignore_config": (
        ["rope_scaling", "use_mrope"],
        ["--ignore-config", "rope_scaling", "--ignore-config", "use_mrope"],
    ),
    "task": ("mmlu", ["--task", "mmlu"]),
    "data": ("mmlu.csv", ["--data", "mmlu.csv"]),
    "prompts": ("mine.txt", ["--prompts", "mine.txt"]),
    "text": (["a", "b"], ["--text", "a", "--text", "b"]),
    "image": (["a.png", "b.png"], ["--image", "a.png", "--image", "b.png"]),
    "limit": (3, ["--limit", "3"]),
    "sample": (3, ["--sample", "3"]),
    "stratify": ("subject", ["--stratify", "subject"]),
    "samples": (2, ["--samples", "2"]),
    "shots": (2, ["--shots", "2"]),
    "score": (True, ["--score"]),
    "chat": ("never", ["--chat", "never"]),
    "raw": (True, ["--raw"]),
    "system": ("Be brief.", ["--system", "Be brief."]),
    "template_arg": (
        {"enable_thinking": False, "date": "26 Jul 2024", "tools": None},
        ["--template-arg", "enable_thinking=false", "--template-arg", "date=26 Jul 2024", "--template-arg=tools=None"],
    ),
    "prefix": ("The answer is", ["--prefix", "The answer is"]),
    "bos": ("always", ["--bos", "always"]),
    "allow_special": (True, ["--allow-special"]),
    "compat_duplicate_last_prompt_token": (True, ["--compat-duplicate-last-prompt-token"]),
    "sampler": ("sample", ["--sampler", "sample"]),
    "thresholds": ("server", ["--thresholds", "server"]),
    "pause": (" ...", ["--pause", " ..."]),
    "sampler_arg": ({"limit": 0.5, "name": "x"}, ["--sampler-arg", "limit=0.5", "--sampler-arg", "name=x"]),
    "temperature": (0.7, ["--temperature", "0.7"]),
    "top_p": (0.9, ["--top-p", "0.9"]),
    "top_k": (5, ["--top-k=5"]),
    "min_p": (0.1, ["--min-p", "0.1"]),
    "batch_size": (2, ["--batch-size", "2"]),
    "deterministic": (True, ["--deterministic"]),
    "matmul_precision": ("high", ["--matmul-precision", "high"]),
    "max_new_tokens": (8, ["--max-new-tokens", "8"]),
    "stop_repeats": (4, ["--stop-repeats", "4"]),
    "stop": (["\n", "a\\b\t"], ["--stop", "\\n", "--stop", "a\\\\b\t"]),
    "seed": (1, ["--seed", "1"]),
    "probes": (["output", "lens"], ["--probes", "output, lens"]),
    "alphas": ([0.5, 3.0], ["--alphas", "0.5,3"]),
    "layer_stride": (2, ["--layer-stride", "2"]),
    "lens_stride": (2, ["--lens-stride", "2"]),
    "lens_layers": ([2, 4], ["--lens-layers", "2,4"]),
    "lens_every": (8, ["--lens-every", "8"]),
    "residuals": ([0, 6], ["--residuals", "0,6"]),
    "top_tokens": (3, ["--top-tokens", "3"]),
    "top_k_mass": (4, ["--top-k-mass", "4"]),
    "attention_rows": ([[3, 0], [3, 1]], ["--attention-rows", "3:0,3:1"]),
    "prompt_positions": (True, ["--prompt-positions"]),
    "lens_renyi": (True, ["--lens-renyi"]),
    "experts": (True, ["--experts"]),
    "step_metrics": (["margin"], ["--step-metrics", "margin"]),
    "precision": ("float16", ["--precision", "float16"]),
    "out": ("run", ["--out", "run"]),
    "mesh": (None, ["--mesh", "none"]),
}
# Further fields without which a field is refused.
NEEDS = {
    "model": {"text": ["a"]},
    "data": {"task": "mmlu"},
    "image": {"text": ["a", "b"]},
    "samples": {"sampler": "sample"},
    "shots": {"task": "gsm8k"},
    "stratify": {"sample": 3},
    "thresholds": {"sampler": "entropix"},
    "pause": {"sampler": "dslider"},
    "sampler_arg": {"sampler": "coin"},
    **{name: {"sampler": "sample"} for name in ("temperature", "top_p", "top_k", "min_p")},
}


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch):
    """A sampler and a metric of plug-ins have these names."""
    monkeypatch.setitem(SAMPLERS._objects, "coin", None)
    monkeypatch.setitem(STEP_METRICS._objects, "margin", None)


def parse(*words):
    """Return the fields of a run that a command line gives."""
    calls = []
    Command("trace", "", calls.append, trace.settings, "").execute(words)
    return calls[0].fields(RunConfig)


def test_every_field_of_a_run_has_a_value_here():
    assert VALUES.keys() == RunConfig.model_fields.keys()


@pytest.mark.parametrize("name", VALUES)
def test_a_field_means_the_same_in_yaml_in_python_and_on_the_command_line(name, tmp_path):
    (value, words), others = VALUES[name], NEEDS.get(name, {})
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({name: value, **others}))
    in_python = run_config(**{name: value}, **others)
    assert getattr(in_python, name) != RunConfig.model_fields[name].default
    on_the_command_line = run_config(**parse(*words), **others)
    assert getattr(run_config(file), name) == getattr(in_python, name) == getattr(on_the_command_line, name)


def test_an_explicit_option_beats_yaml_and_a_default_does_not(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("limit: 3\nmax_new_tokens: 5\nscore: true\nprobes: [output]\n")
    config = run_config(file, **parse("--max-new-tokens", "64", "--no-score"))
    assert (config.limit, config.max_new_tokens, config.score, config.probes) == (3, 64, False, ("output",))
    assert (RunConfig().limit, RunConfig().max_new_tokens) == (None, 64)


def test_help_shows_every_field_with_its_text_and_default_in_its_group(jaxtrace, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    done = jaxtrace("trace", "--help")
    assert (done.status, done.err) == (0, "")
    groups = dict(re.findall(r"^(\w[\w ]*):\n((?:  .*\n)+)", done.out, re.MULTILINE))
    assert list(groups)[1:-2] == ["Model", "Prompt", "Sampling", "What to record", "Output", "Devices"]
    for name, field in RunConfig.model_fields.items():
        option = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
        (entry,) = re.findall(
            rf"^  {option}(?![\w-]).*(?:\n {{4,}}.*)*", groups[field.json_schema_extra["group"]], re.MULTILINE
        )
        assert field.description in entry
        if field.default not in (None, False, (), ""):
            default = field.default if not isinstance(field.default, tuple) else ",".join(map(str, field.default))
            assert f"Default: {default}." in entry
    assert "example:\n  jaxtrace trace demo " in done.out
    assert "  truthfulqa " in groups["tasks"] and "  lab " in groups["tasks"]


@pytest.mark.parametrize("verb", [*app.VERBS, "study", "confidence", "lab"])
def test_every_verb_is_listed_and_has_help_with_an_example(jaxtrace, verb):
    assert re.search(rf"^  {verb} ", jaxtrace().out, re.MULTILINE)
    done = jaxtrace(verb, "--help")
    assert (done.status, done.err) == (0, "")
    for under in re.findall(r"^  ([\w-]+)  ", done.out, re.MULTILINE) if "verbs:" in done.out else ():
        assert f"example:\n  jaxtrace {verb} {under} " in jaxtrace(verb, under, "--help").out
    assert "verbs:" in done.out or f"example:\n  jaxtrace {verb} " in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trce"], "no verb 'trce'; did you mean 'trace'? there are: trace, sweep, plan"),
        (["study", "dynamic"], "study: no verb 'dynamic'; did you mean 'dynamics'? there are: dynamics"),
        (["trace", "--tpo-p", "1"], "trace: no option --tpo-p; did you mean '--top-p'? see jaxtrace trace --help"),
        (["trace", "--top=1"], "trace: no option --top=1; did you mean '--top-p'? see jaxtrace trace --help"),
        (["trace", "demo", "other"], "trace: 'other' is one argument too many; see jaxtrace trace --help"),
        (["trace", "--limit"], "trace: --limit: expected one argument; see jaxtrace trace --help"),
        (["trace", "--limit", "few"], "settings: limit is few; it must be a valid integer"),
        (["convert", "demo"], "convert: out is missing; give it"),
        (["sweep"], "sweep: file is missing; give it"),
        (["sweep", "a.yaml", "--bandwidth", "0"], "sweep: bandwidth is 0; it must be greater than or equal to 0.001"),
        (["trace", "--processes", "2"], "trace: --processes and --process need a coordinator"),
        (
            ["grade", "x", "--out", "y", "--judge-model", "m"],
            "grade: --judge-url needs --judge-model or --critic-model",
        ),
        (["confidence", "train", "--out", "y"], "confidence train: traces is missing; give it"),
    ],
)
def test_wrong_words_are_refused_in_one_line(jaxtrace, words, message):
    done = jaxtrace(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"jaxtrace: {message}") and done.err.count("\n") == 1


def test_positional_arguments_may_stand_between_options():
    fields = parse("--limit", "3", "demo", "--score")
    assert fields == {"model": "demo", "limit": "3", "score": True}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FileNotFoundError(2, "No such file or directory", "a.txt")])
def test_interrupts_and_errors_of_the_system_become_one_line(jaxtrace, monkeypatch, error):
    @command("models", example="")
    def models(arguments: Arguments) -> None:
        """Fail."""
        raise error

    monkeypatch.setattr("jaxtrace.cli.show.models", models)
    done = jaxtrace("models")
    expected = (
        (130, "interrupted")
        if isinstance(error, KeyboardInterrupt)
        else (2, "a.txt: No such file or directory; fix it, or name another place")
    )
    assert (done.status, done.err) == (expected[0], f"jaxtrace: {expected[1]}\n")


def test_a_path_that_must_exist_is_checked(jaxtrace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["trace", "--lens", "no"], ["report", "no"], ["confidence", "apply", "c", "no", "--out", "o"]):
        done = jaxtrace(*words)
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert done.err.startswith("jaxtrace: no: No such file or directory; name ")
    assert list(Path().iterdir()) == []
