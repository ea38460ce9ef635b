"""`jaxtrace models`, `info` on published names, and `trace --random`."""

import json

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.checkpoints.random import open_random
from jaxtrace.models.published import PUBLISHED
from tests.models.cases import SMALL

FEW = ("--max-new-tokens", 3, "--probes", "output")


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    """Width of a pipe."""
    monkeypatch.setattr("jaxtrace.cli.output.console.width", 80)


@pytest.fixture
def shape(tmp_path):
    """A directory with the config of a tiny model."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(SMALL["qwen3"] | {"model_type": "qwen3"}), encoding="utf-8")
    return directory


def test_every_published_model_is_listed_with_its_shape(jaxtrace):
    done = jaxtrace("models")
    assert (done.status, done.err) == (0, "")
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert max(map(len, lines)) <= 80 and "…" not in done.out
    for model in PUBLISHED:
        (at,) = [i for i, line in enumerate(lines) if line.split()[:1] == [model.name]]
        assert f"{model.parameters:,}" in lines[at]
        assert f"{model.config.num_heads}/{model.config.kv_heads} × {model.config.head_dim}" in lines[at]
        hub_id, layers, context, *_ = lines[at + 1].split()
        assert (hub_id, layers, context) == (model.hub_id, str(model.config.num_layers), f"{model.config.context:,}")
    assert {model.family for model in PUBLISHED} <= {*lines}


def test_special_layers_are_listed(jaxtrace):
    out = jaxtrace("models").out
    for words in (
        "40 layers, 8 of them look at images",
        "100 layers, 20 of them look at images",
        "26 layers, 22 of them see 512 tokens",
        "26 layers, 13 of them see 4,096 tokens",
        "32 layers, all of them see 4,096 tokens",
    ):
        assert words in out


def test_bytes_per_token_of_cache_and_trace(jaxtrace):
    first, second = jaxtrace("models", "llama-3.2-1b").out.splitlines()[4:6]
    assert first.rstrip().endswith(" 32 KiB")  # 2 · 16 layers · 8 heads · 64 · 2 bytes
    # 32-bit: the token; 7 + 3 orders; of 16 layers 9 · 32 heads, 2, 5 and 2, of 17 2
    values = 1 + 7 + 3 + 16 * (9 * 32 + 2 + 5 + 2) + 17 * 2
    assert second.rstrip().endswith(f" {4 * values / 1024:.3g} KiB")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("gpt2", {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"}),
        ("Gemma 2", {"gemma-2-2b", "gemma-2-9b", "gemma-2-27b"}),
        ("meta-llama/llama-3.2-1B", {"llama-3.2-1b"}),
        ("VISION", {"llama-3.2-11b-vision", "llama-3.2-11b-vision-instruct", "llama-3.2-90b-vision"}),
    ],
)
def test_models_are_found_by_part_of_a_name(jaxtrace, wanted, names):
    words = {line.split()[0] for line in jaxtrace("models", wanted).out.splitlines() if line.strip()}
    assert words & {model.name for model in PUBLISHED} == names


def test_a_name_of_no_model_is_refused(jaxtrace):
    done = jaxtrace("models", "mamba")
    assert (done.status, done.out) == (2, "")
    assert done.err == "jaxtrace: 'mamba': no published model has this name; run jaxtrace models to list all\n"


def test_info_of_a_published_name_needs_no_network(jaxtrace, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxtrace.model.open_checkpoint", None)
    done = jaxtrace("info", "Llama-3.2-11B-Vision")
    assert done.status == 0, done.err
    output = " ".join(done.out.split())
    for words in (
        "published as meta-llama/Llama-3.2-11B-Vision",
        "10,642,941,475",
        "layers 40, 4096 wide, feed-forward 14336; 8 of them look at images",
        "images at most 4 tiles of 448 pixels, 1,025 vectors each, through 32 + 8 layers",
        "cache per token 256 KiB in float32",
    ):
        assert words in output


def test_random_prompts_of_a_random_model(jaxtrace, no_plots, shape, tmp_path):
    run = ("trace", shape, "--random", "--seed", 3, *FEW, "--out", tmp_path / "run")
    done = jaxtrace(*run)
    assert done.status == 0, done.err
    trace = jt.open(tmp_path / "run")
    assert [row.prompt.id for row in trace.rows] == [f"random-{i}" for i in range(4)]
    assert [len(row.prompt_tokens) for row in trace.rows] == [32] * 4
    assert len({tuple(row.prompt_tokens) for row in trace.rows}) == 4
    stored = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert (stored["config"]["random"], stored["config"]["seed"]) == (True, 3)
    assert stored["info"]["model"] == f"{shape} (random, seed 3)"
    assert stored["info"]["checkpoint"] == open_random(str(shape), 3).fingerprint()

    model = jt.load(str(shape), random=True, seed=3)
    want = model.generate([row.prompt_tokens for row in trace.rows], max_new_tokens=3, probes=jt.Probes.of("output"))
    for got, row in zip(trace.rows, want.rows, strict=True):
        np.testing.assert_array_equal(got.metrics["token"], row.metrics["token"])
        np.testing.assert_array_equal(got.metrics["entropy"], row.metrics["entropy"])

    for table in ("prompts", "tokens", "layers"):
        (tmp_path / "run" / table / "part-00000.parquet").unlink()
    assert jaxtrace(*run, "--resume").status == 0
    again = jt.open(tmp_path / "run")
    assert [row.metrics["token"].tolist() for row in again.rows] == [row.metrics["token"].tolist() for row in want.rows]

    config = json.loads((shape / "config.json").read_text(encoding="utf-8"))
    (shape / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}), encoding="utf-8")
    done = jaxtrace(*run, "--resume")
    assert done.status == 2 and "info.checkpoint is" in done.err


def test_seeds_draw_other_prompts_and_limits_fewer(jaxtrace, no_plots, shape, tmp_path):
    for seed in (0, 1):
        out = tmp_path / str(seed)
        assert jaxtrace("trace", shape, "--random", "--limit", 2, "--seed", seed, *FEW, "--out", out).status == 0
    one, other = (jt.open(tmp_path / str(seed)).rows for seed in (0, 1))
    assert len(one) == len(other) == 2
    assert not np.array_equal(one[0].prompt_tokens, other[0].prompt_tokens)


def test_random_weights_take_given_prompts(jaxtrace, no_plots, shape, tmp_path):
    (tmp_path / "ids.jsonl").write_text('{"tokens": [1, 2, 3]}\n', encoding="utf-8")
    run = ("trace", shape, "--random", "--prompts", tmp_path / "ids.jsonl", *FEW, "--out", tmp_path / "run")
    assert jaxtrace(*run).status == 0
    assert [row.prompt_tokens.tolist() for row in jt.open(tmp_path / "run").rows] == [[1, 2, 3]]


def test_a_mesh_of_one_device_changes_nothing(jaxtrace, no_plots, tmp_path):
    options = ("trace", "demo", "--limit", 2, *FEW)
    assert jaxtrace(*options, "--out", tmp_path / "here").status == 0
    assert jaxtrace(*options, "--mesh", "data=1,model=1", "--out", tmp_path / "mesh").status == 0
    here, mesh = (jt.open(tmp_path / name) for name in ("here", "mesh"))
    assert [row.metrics["token"].tolist() for row in mesh.rows] == [row.metrics["token"].tolist() for row in here.rows]
    assert json.loads((tmp_path / "mesh" / "run.json").read_text())["info"]["mesh"] == "data=1,model=1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("nowhere", "--random"), "nowhere: no such directory; give a checkpoint directory"),
        (("gemma-3-1b", "--random", "--text", "a"), "gemma-3-1b (random, seed 0) has no tokenizer; give lists of"),
        (("gemma-3-1b", "--random", "--mesh", "model"), "mesh is model; not sizes of data and model"),
        (("gemma-3-1b", "--random", "--mesh", "model=4096"), "mesh 'model=4096': needs 4096 devices"),
        (("demo", "--mesh", "data=0"), "mesh is data=0; not sizes of data and model"),
        (("gemma-3-1b",), "nothing to trace; give a task, a prompts file, or a text"),
    ],
)
def test_a_wrong_random_run_is_refused(jaxtrace, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    done = jaxtrace("trace", *options, "--out", "out")
    assert done.status == 2
    assert words in done.err and done.err.startswith("jaxtrace: ") and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
