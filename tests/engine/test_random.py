"""Random weights of a model's shape, from `jaxtrace.load(…, random=True)`."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrace
from jaxtrace import CheckpointError, Probes
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.random import open_random
from jaxtrace.model import open_model_checkpoint
from jaxtrace.models.decoder import is_stacked, stack_layers
from jaxtrace.models.published import find_published
from tests.models.cases import SEEING, SMALL

CONFIGS = {
    "llama": SMALL["llama"] | {"model_type": "llama"},
    "gemma3_text": SMALL["gemma3_text"] | {"model_type": "gemma3_text"},  # a period of two and a rest of one
    "gpt2": SMALL["gpt2"] | {"model_type": "gpt2"},
    "mllama": SEEING,
}


def written(directory, name):
    """Create a directory with a config.json and no weights."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    return directory


@pytest.fixture(params=CONFIGS)
def directory(request, tmp_path):
    return written(tmp_path, request.param)


def drawn(directory, **options):
    return jaxtrace.load(str(directory), random=True, **options).params


def assert_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_equal_seeds_give_equal_weights(directory):
    first, again, other = (drawn(directory, seed=seed) for seed in (3, 3, 4))
    assert_equal(again, first)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    for a, b in pairs:
        assert (a == b).all() if len(jnp.unique(a)) == 1 else not (a == b).any()


def test_layers_differ_and_have_the_usual_scale(directory):
    params = drawn(directory)
    first, *_, last = (layer["feed_forward"]["up"] for layer in params["layers"])
    assert not (first == last).any()
    assert 0.015 < jnp.std(first) < 0.025
    np.testing.assert_array_equal(params["layers"][0]["attention_norm"]["weight"] + 0.0, params["final_norm"]["weight"])


def test_stacked_layers_have_the_same_weights(directory):
    stacked = drawn(directory, stacked=True)
    assert is_stacked(stacked)
    config = open_random(str(directory), 0).config
    assert_equal(stacked, stack_layers(config, drawn(directory)))


def test_weights_of_another_dtype_are_rounded(tmp_path):
    directory = written(tmp_path, "gpt2")
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), drawn(directory))
    assert_equal(drawn(directory, dtype=jnp.bfloat16), rounded)


ON_EIGHT = """
import sys
import jax, numpy as np
import jaxtrace

for directory in sys.argv[1:]:
    for stacked in (False, True):
        model = jaxtrace.load(directory, random=True, seed=5, stacked=stacked, mesh="data=2,model=4")
        leaves = jax.tree.leaves(model.params)
        assert all(len(leaf.sharding.device_set) == 8 for leaf in leaves)
        assert any(leaf.addressable_shards[0].data.size < leaf.size for leaf in leaves)
        np.savez(f"{directory}/{stacked}.npz", *leaves)
"""


def test_weights_on_a_mesh_are_the_same(tmp_path):
    directories = [written(tmp_path / name, name) for name in ("gemma3_text", "gpt2")]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    eight = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-c", ON_EIGHT, *map(str, directories)]
    done = subprocess.run(command, env={**os.environ, **eight}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for directory in directories:
        for stacked in (False, True):
            want = drawn(directory, seed=5, stacked=stacked)
            with np.load(directory / f"{stacked}.npz") as stored:
                assert_equal(jax.tree.unflatten(jax.tree.structure(want), list(stored.values())), want)


def test_random_model_generates_a_trace(directory):
    model = jaxtrace.load(str(directory), random=True, seed=2)
    assert model.name == f"{directory} (random, seed 2)"
    assert (model.tokenizer, model.stop_tokens) == (None, ())
    assert (model.image_processor is None) == (model.config.vision is None)
    row = model.generate([[1, 2, 3]], max_new_tokens=3, probes=Probes.of("output")).rows[0]
    assert row.length == 3
    assert 0 < row.metrics["entropy"][0] <= np.log(model.config.vocab_size) + 1e-5


def test_random_model_uses_the_tokenizer_of_its_directory():
    model = jaxtrace.load(str(demo_path()), random=True)
    trained = jaxtrace.load("demo")
    assert model.config == trained.config
    assert model.tokenizer.encode("Where", chat=False) == trained.tokenizer.encode("Where", chat=False)
    assert not (model.params["embedding"] == trained.params["embedding"]).any()


def test_config_file_is_enough(tmp_path):
    written(tmp_path, "llama")
    checkpoint = open_random(str(tmp_path / "config.json"), 0)
    assert checkpoint.config == open_random(str(tmp_path), 0).config
    assert checkpoint.name == f"{tmp_path / 'config.json'} (random, seed 0)"


@pytest.mark.parametrize("name", ["gemma-3-1b", "google/gemma-3-1b-pt", "Google/GEMMA-3-1b-pt"])
def test_published_models_need_no_file(name):
    checkpoint = open_random(name, 7)
    assert checkpoint.config == find_published("gemma-3-1b").config
    assert (checkpoint.name, checkpoint.directory) == (f"{name} (random, seed 7)", None)


def test_without_random_a_short_name_is_a_hub_id(monkeypatch, tmp_path):
    monkeypatch.setattr("jaxtrace.model.open_checkpoint", lambda name, *_: name)
    monkeypatch.chdir(tmp_path)
    assert open_model_checkpoint("Llama-3.2-1b") == "meta-llama/Llama-3.2-1B"
    assert open_model_checkpoint("gpt2") == "openai-community/gpt2"
    assert open_model_checkpoint("somebody/gpt2") == "somebody/gpt2"
    (tmp_path / "gpt2").mkdir()
    assert open_model_checkpoint("gpt2") == "gpt2"


def test_fingerprints_tell_configs_and_seeds_apart():
    prints = [open_random(name, seed).fingerprint() for name in ("gpt2", "gpt2-xl", "gemma-3-1b") for seed in (0, 1)]
    assert len({*prints}) == 6 and {len(one) for one in prints} == {64}
    assert open_random("openai-community/gpt2", 1).fingerprint() == prints[1]


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load("llama-3.2-2b", random=True)
    assert "llama-3.2-2b: neither a published model nor a directory" in str(error.value)
    assert "`jaxtrace models`" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no config.json"),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "config.json has no model_type; add one that jaxtrace supports: llama, "),
        ('{"model_type": "mamba"}', "its architecture 'mamba' is not supported: it has state-space"),
        ('{"model_type": []}', r"its architecture \[\] is not supported; jaxtrace supports llama, "),
    ],
)
def test_directories_without_a_supported_config_are_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        jaxtrace.load(str(tmp_path), random=True)


def test_demo_with_random_weights():
    model = jaxtrace.load("demo", random=True, seed=3)
    assert model.name == "demo (random, seed 3)" and model.tokenizer is not None
    assert model.config == jaxtrace.load("demo").config
