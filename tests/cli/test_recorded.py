"""Recorded metrics and raw material, chosen on the command line; and `jaxtrace info` of stored traces."""

import pytest

import jaxtrace as jt
from jaxtrace.planning.cost import trace_bytes
from jaxtrace.schema import QUANTITIES
from jaxtrace.settings.run import run_config
from jaxtrace.traces import TraceWriter
from tests.traces.rows import INFO, make_row

OPTIONS = ("--probes", "output, lens", "--layer-stride", 4, "--residuals", "0,6", "--top-tokens", 3)
OPTIONS += ("--attention-rows", "1:0,6:7", "--prompt-positions", "--precision", "float16")


@pytest.fixture(scope="module")
def run(jaxtrace, tmp_path_factory):
    out = tmp_path_factory.mktemp("recorded") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxtrace.figures.write_plots", lambda *_: [])
        done = jaxtrace("trace", "--text", "Mia has a red ball.", "--max-new-tokens", 3, *OPTIONS, "--out", out)
    assert done.status == 0, done.err
    return out


def test_a_trace_holds_what_the_options_choose(run):
    trace = jt.open(run)
    probes = jt.Probes.of(
        "output", "lens", layer_stride=4, residuals=(0, 6), top_tokens=3, attention_rows=((1, 0), (6, 7))
    )
    row = trace.rows[0]
    assert set(row.metrics) == {name for name in probes.metrics if not QUANTITIES[name].only}
    assert trace.traced_layers == (2, 6) and trace.runs[0].precision == "float16"
    assert row.length == len(row.prompt_tokens) - 1 + 3
    assert "".join((row.prompt_pieces[0], *row.pieces)).endswith(row.text)


def test_info_describes_a_trace(jaxtrace, run):
    done = jaxtrace("info", run)
    output = " ".join(done.out.split())
    size, tokens = sum(file.stat().st_size for file in run.rglob("*.parquet")), jt.open(run).rows[0].length
    for words in ("model demo", "mode generate", "complete yes", "prompts 1", f"tokens {tokens},", "precision float16"):
        assert words in output, words
    assert f"{size / 1024:.4g} KiB, {size / tokens / 1024:.4g} KiB per token" in output


def test_info_describes_a_dataset(jaxtrace, tmp_path):
    for task in ("quiz", "story"):
        writer = TraceWriter(tmp_path, INFO, partition=f"model=tiny/task={task}")
        writer.write([(0, make_row(0, 3))])
    writer.close()
    output = " ".join(jaxtrace("info", tmp_path).out.split())
    for words in ("runs 2", "model tiny (2)", "task quiz (1), story (1)", "complete 1 of 2 runs", "tokens 6,"):
        assert words in output, words


def test_info_counts_the_bytes_of_the_chosen_metrics(jaxtrace):
    settings = run_config(None, probes="output,lens", layer_stride=4, top_tokens=3, precision="float16")
    config = jt.load("demo").config
    size = sum(trace_bytes(config, settings.recorded, precision="float16").values())
    done = jaxtrace("info", "demo", *OPTIONS[:4], "--top-tokens", 3, "--precision", "float16")
    assert f"trace per token {size} B in float16" in " ".join(done.out.split())


def test_info_says_where_the_lens_is_and_what_groups_cost_in_time(jaxtrace):
    done = jaxtrace("info", "demo", "--lens-stride", 3, "--lens-every", 4, "--batch-size", 2)
    output = " ".join(done.out.split())
    assert done.status == 0 and "lens at layers 3, 6 of 6, at one step of 4" in output
    assert "time of a step estimated for float32 and 256 positions from" in output
    for words in ("1 row plain", "2 rows plain", "+ output", "+ attention", "+ dispersion", "+ lens", "+ hidden"):
        assert words in output, words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--residuals", "0,7"), "residuals: no layer 7; there are 0 (the embedding) to 6"),
        (("--attention-rows", "7:0"), "attention_rows: no head 0 of layer 7"),
        (("--layer-stride", "0"), "layer_stride is 0; it must be greater than or equal to 1"),
        (("--lens-layers", "2,7"), "lens_layers: no layer 7; there are layers 1 to 6"),
        (("--lens-every", "4", "--probes", "output"), "lens_every needs the group lens; record it too"),
        (
            ("--lens-layers", "2", "--lens-stride", "2"),
            "lens_stride is 2, and lens_layers names the layers of the lens",
        ),
        (("--precision", "float8"), "precision is float8; it must be 'float32' or 'float16'"),
        (("--score", "--prompt-positions"), "score records every position; drop prompt_positions"),
    ],
)
def test_wrong_choices_are_refused_before_anything_runs(jaxtrace, tmp_path, options, message):
    done = jaxtrace("trace", "--text", "A", *options, "--out", tmp_path / "run")
    assert (done.status, (tmp_path / "run").exists()) == (2, False)
    assert message in " ".join(done.err.split()) and done.err.count("\n") == 1
