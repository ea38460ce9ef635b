"""Plug-ins of a package outside the tree: an estimator, a task, a sampler and a metric of a step."""

import re
import sys

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.errors import ConfigError
from jaxtrace.estimators.registry import ESTIMATORS
from jaxtrace.plugins import Registry
from jaxtrace.schema import METRICS, QUANTITIES, STEP_METRICS
from jaxtrace.settings.sampling import SAMPLERS
from jaxtrace.tasks.registry import TASKS
from tests.commands import run_command

MODULE = """
import dataclasses
import jax, jax.numpy as jnp, numpy as np
import jaxtrace as jt

@jt.task("enigmas", "two riddles")
def enigmas(path, limit):
    return [jt.Prompt("What has keys?", id="a"), jt.Prompt("What has teeth?", id="b")][:limit]

@jt.sampler("second-best")
@dataclasses.dataclass(frozen=True)
class SecondBest(jt.Sampler):
    rank: int = 2

    def __call__(self, logits, keys, metrics, state):
        return jt.SamplerOutput(jax.lax.top_k(logits, self.rank)[1][:, -1].astype(jnp.int32))

@jt.step_metric(definition="s1 - s2 of the two largest logits", needs=("logits",), unit="nats", feature=True)
def score_margin(inputs):
    best = jax.lax.top_k(inputs.logits, 2)[0]
    return best[..., 0] - best[..., 1]

@jt.step_metric(definition="|x_l| of the largest entry", needs=("residuals",), dims=("layer",))
def residual_peak(inputs):
    return jnp.abs(inputs.residuals[:, :, 1:]).max(-1)

@jt.step_metric(definition="entropy of the head over that of the output", needs=("attention", "moments"),
                dims=("layer", "head"))
def relative_entropy(inputs):
    return inputs.attention.entropy / inputs.moments.entropy[..., None, None]

@jt.estimator(formula="-mean margin", source="this test", metrics=("score_margin",))
def thin_margin(trace):
    means = [-row.metrics["score_margin"][row.drawn_steps].mean() for row in trace.rows]
    return jt.estimators.Scores(np.array(means, float))

@jt.step_metric(definition="that fails", needs=("logits",))
def failing(inputs):
    raise ValueError("no\\nvalue")

@jt.task("blank", "that fails")
def blank(path, limit):
    return 1 / 0

@jt.task("texts", "of texts")
def texts(path, limit):
    return ["What has keys?"]

@jt.step_metric(definition="of a wrong shape", needs=("moments",), dims=("layer",))
def misshapen(inputs):
    return inputs.moments.entropy
"""
ENTRIES = """
[jaxtrace.estimators]
thin_margin = riddler:thin_margin
[jaxtrace.tasks]
enigmas = riddler:enigmas
blank = riddler:blank
texts = riddler:texts
[jaxtrace.samplers]
second-best = riddler:SecondBest
[jaxtrace.step_metrics]
score_margin = riddler:score_margin
residual_peak = riddler:residual_peak
relative_entropy = riddler:relative_entropy
misshapen = riddler:misshapen
failing = riddler:failing
absent = riddler:absent
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with plug-ins is installed: a module and its metadata are on the path."""
    (tmp_path / "riddler.py").write_text(MODULE)
    metadata = tmp_path / "riddler-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: riddler\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)
    tables = [METRICS, QUANTITIES]
    registries = (ESTIMATORS, TASKS, SAMPLERS, STEP_METRICS)
    tables += [held for registry in registries for held in (registry._objects, registry._origins)]
    kept = [dict(table) for table in tables]
    for registry in registries:
        vars(registry).pop("_entries", None)
    yield
    for table, content in zip(tables, kept, strict=True):
        table.clear()
        table.update(content)
    for registry in registries:
        vars(registry).pop("_entries", None)
    sys.modules.pop("riddler", None)


def test_plugins_of_a_package_work_by_name_on_the_command_line(package, tmp_path):
    words = ["--sampler", "second-best", "--sampler-arg", "rank=3", "--probes", "output,hidden", "--top-tokens", "3"]
    metrics = "score_margin,residual_peak,relative_entropy"
    done = run_command(
        "trace", "demo", "--task", "enigmas", "--max-new-tokens", "4", *words, "--step-metrics", metrics,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.status == 0, done.err
    trace = jt.open(tmp_path / "run")
    assert [row.prompt.text for row in trace.rows] == ["What has keys?", "What has teeth?"]
    assert trace.info["step_metrics"] == metrics.split(",")
    row = trace.rows[0].metrics
    np.testing.assert_array_equal(row["token"], row["top_ids"][:, 2])
    np.testing.assert_allclose(row["score_margin"], row["top_logprobs"][:, 0] - row["top_logprobs"][:, 1], atol=1e-5)
    layers, heads = trace.num_layers, trace.info["heads"]
    assert row["relative_entropy"].shape == (4, layers, heads)
    assert row["residual_peak"].shape == (4, layers)
    assert np.all(row["residual_peak"] <= row["hidden_norm"][:, 1:])
    scores = ESTIMATORS.all()["thin_margin"].compute(trace)
    np.testing.assert_allclose(scores.answers[0], -row["score_margin"].mean(), rtol=1e-6)
    assert "score margin" in run_command("report", tmp_path / "run").out + (tmp_path / "run/report.html").read_text()


def test_metrics_of_a_plugin_agree_in_decode_and_score(package):
    model, names = jt.load("demo"), ("score_margin", "residual_peak", "relative_entropy")
    drawn = model.generate(["Once upon a time"], max_new_tokens=4, probes=jt.Probes.of("attention", step_metrics=names))
    row = drawn.rows[0]
    tokens = [*row.prompt_tokens.tolist(), *row.metrics["token"].tolist()]
    scored = model.score([tokens], probes=jt.Probes.of(step_metrics=names)).rows[0]
    for name in names:
        last = scored.metrics[name][len(row.prompt_tokens) - 1 :][: row.length]
        np.testing.assert_allclose(last, row.metrics[name], rtol=1e-4, atol=1e-5)


def test_a_trace_is_read_without_the_plugin_that_it_was_made_with(package, tmp_path):
    probes = jt.Probes.of("output", step_metrics=("residual_peak", "score_margin"))
    jt.load("demo").generate(["Once"], max_new_tokens=2, probes=probes).save(tmp_path / "run")
    for name in ("residual_peak", "score_margin"):
        del METRICS[name], QUANTITIES[name], STEP_METRICS._objects[name]
    row = jt.open(tmp_path / "run").rows[0]
    assert "entropy" in row.metrics
    assert not {"residual_peak", "score_margin"} & row.metrics.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampler", "second-best", "--sampler-arg", "rang=3"], "sampler second-best: .*unexpected keyword .*'rang'"),
        (["--sampler", "greedy", "--sampler-arg", "rank=3"], "sampler_arg with sampler 'greedy', which takes none"),
        (["--sampler", "third"], "sampler is third; it must be 'greedy', .*'dslider' or 'second-best'"),
        (["--step-metrics", "score_margn"], "no plug-in has the metric 'score_margn'; did you mean 'score_margin'"),
        (["--step-metrics", "misshapen"], r"step metric misshapen: returns float32 \[1, \d+\] instead of floats \["),
        (["--step-metrics", "failing"], r"step metric failing: fails \(ValueError: no\); correct"),
        (["--task", "blank"], r"task blank: fails \(ZeroDivisionError: division by zero\); correct the plug-in"),
        (["--task", "texts"], r"task texts: returns a str, no jt.Prompt; correct the plug-in"),
        (["--step-metrics", "absent"], "jaxtrace.step_metrics: absent = riddler:absent cannot be imported"),
    ],
)
def test_a_wrong_plugin_or_argument_is_one_line(package, words, message, tmp_path):
    done = run_command("trace", "demo", "--limit", "1", *words, "--out", tmp_path / "run")
    assert done.status == 2
    *progress, line = done.err.splitlines()
    assert all(text.startswith("tracing ") for text in progress)
    assert re.search(message, line), done.err


def test_the_same_code_may_register_again_and_other_code_may_not():
    registry = Registry("things")
    registry.register("one", 1, "module.one")
    registry.register("one", 2, "module.one")
    assert registry.find("one") == 2
    with pytest.raises(ConfigError, match=r"jaxtrace.things: module.one and other.one are both named 'one'"):
        registry.register("one", 3, "other.one")
    with pytest.raises(ConfigError, match="'a b' is no name"):
        registry.register("a b", 3, "other.ab")


@pytest.mark.parametrize("name", ["entropy", "step", "surprisal", "residuals"])
def test_a_metric_cannot_take_a_name_of_jaxtraces_own(name):
    def compute(inputs):
        return inputs.moments.entropy

    compute.__name__ = name
    with pytest.raises(ConfigError, match=f"{name!r} is a name of jaxtrace's own"):
        jt.step_metric(definition="", needs=("moments",))(compute)
