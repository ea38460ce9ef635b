"""Gemma 4: keys and values that layers share, in checkpoints, caches, metrics and descriptions of runs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxtrace
from jaxtrace import CheckpointError, Model, Probes, init_params
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.figures.tables.parts import special_layers
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.forward import forward
from jaxtrace.models.published import find_published
from jaxtrace.models.rope import inverse_frequencies
from jaxtrace.models.rope_config import ProportionalScaling, Rope
from jaxtrace.studies.dynamics.quantities import KVMemory
from jaxtrace.traces.run_json import Cache
from tests.models.cases import CASES, SMALL

SHARED = {"model_type": "gemma4_text", **SMALL["gemma4_text"]}
WIDE = SHARED | CASES["gemma4_text", "keys as values, more key heads in windows, a period and a tail"]


def parsed(raw):
    return FAMILIES[raw["model_type"]].decoder_config(raw, "test")


def random_model(raw):
    """Return a decoder whose layers attend to different positions."""
    config, rng = parsed(raw), np.random.default_rng(0)
    drawn = init_params(config, jax.random.key(0))
    return Model("tiny", config, jax.tree.map(lambda x: jnp.float32(x + rng.normal(0, 0.2, x.shape)), drawn))


@pytest.fixture(scope="module")
def sharing():
    return random_model(SHARED)


def test_layers_share_the_keys_of_the_last_layer_of_their_type():
    kinds = find_published("gemma-4-e2b").config.kinds
    assert [kind.kv_source for kind in kinds] == [None] * 15 + ([13] * 4 + [14]) * 4
    assert {(kind.window, kind.head_dim) for kind in kinds} == {(512, None), (None, 512)}
    assert [kind.feed_forward for kind in kinds] == [None] * 15 + [2 * 6144] * 20
    assert special_layers(find_published("gemma-4-e2b").config) == (
        "28 of them see 512 tokens, 7 have heads 8/1 × 512, 20 share keys and values"
    )


def test_proportional_rope_turns_the_first_pairs_at_wavelengths_of_the_whole_head():
    length = jnp.array([5])
    whole = inverse_frequencies(Rope(1e6), 512, length)
    partial = inverse_frequencies(Rope(1e6, ProportionalScaling(0.25, 2.0)), 512, length)
    np.testing.assert_allclose(partial[:64], whole[:64] / 2, rtol=1e-6)
    assert partial.shape == (256,) and not partial[64:].any()


def test_a_layer_without_keys_of_its_own_has_no_weights_and_no_cache(sharing):
    *_, full, local, last = sharing.params["layers"]
    assert full["attention"].keys() == {"q", "k", "v", "o", "q_norm", "k_norm"}
    assert local["attention"].keys() == last["attention"].keys() == {"q", "o", "q_norm"}
    cache = empty_cache(sharing.config, 2, 8, stacked=False)
    assert [entry is None for entry in cache] == [kind.kv_source is not None for kind in sharing.config.kinds]
    assert cache[1].k.shape == (2, 1, 8, 8) and cache[2].k.shape == (2, 1, 4, 8)


def test_metrics_of_a_sharing_layer_are_those_of_its_own_queries(sharing, rng):
    """Weights of layers 2 and 5, which attend to the same keys, differ, and their entropies are the metrics."""
    rows = tuple((layer, head) for layer in (2, 5) for head in range(4))
    tokens = rng.integers(0, sharing.config.vocab_size, 9).tolist()
    metrics = sharing.score([tokens], probes=Probes.of("attention", attention_rows=rows)).rows[0].metrics
    p = np.nan_to_num(metrics["attention_rows"]).reshape(9, 2, 4, 9)
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
    np.testing.assert_allclose(entropy, metrics["attention_entropy"][:, [1, 4]], atol=1e-5)
    assert np.abs(p[:, 0] - p[:, 1]).max() > 0.01


def test_tokens_of_images_and_sounds_have_the_embeddings_of_padding(rng):
    config = parsed({"model_type": "gemma4", **SMALL["gemma4"]})
    assert config.token_aliases == ((3, 0), (7, 0))  # the third one is beyond the vocabulary
    assert parsed(SHARED).token_aliases == ()
    params = init_params(config, jax.random.key(0))

    @jax.jit
    def hidden(tokens):
        return forward(config, params, tokens, empty_cache(config, 2, 3, stacked=False), jnp.zeros(2, jnp.int32)).hidden

    aliased, padded = hidden(np.array([[3, 5, 7], [0, 5, 0]]))
    np.testing.assert_array_equal(aliased, padded)


def written(folder, raw, weights):
    """Write a checkpoint and return its directory."""
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_stored_keys_of_sharing_layers_are_ignored_as_in_transformers(sharing, tmp_path):
    weights = export_weights(sharing.config, sharing.params)
    alone = dataclasses.replace(
        sharing.config, pattern=tuple(dataclasses.replace(kind, kv_source=None) for kind in sharing.config.pattern)
    )
    unused = export_weights(alone, init_params(alone, jax.random.key(1)))
    stored = jaxtrace.load(written(tmp_path, SHARED, unused | weights))
    assert unused.keys() - weights.keys() == {
        f"model.layers.{layer}.self_attn.{name}.weight" for layer in (3, 4) for name in ("k_proj", "v_proj", "k_norm")
    }
    assert not stored.notes
    jax.tree.map(np.testing.assert_array_equal, stored.params, sharing.params)


def test_values_stored_beside_keys_that_are_also_values_are_refused(tmp_path):
    model = random_model(WIDE)
    weights = export_weights(model.config, model.params)
    values = {"model.layers.1.self_attn.v_proj.weight": weights["model.layers.1.self_attn.k_proj.weight"]}
    with pytest.raises(CheckpointError, match=r"unknown: model\.layers\.1\.self_attn\.v_proj\.weight"):
        jaxtrace.load(written(tmp_path, WIDE, weights | values))


@pytest.mark.parametrize("raw", [SHARED, WIDE], ids=["shared keys", "keys as values"])
def test_the_description_of_a_run_has_the_size_of_every_cache(raw, sharing):
    model = sharing if raw is SHARED else random_model(raw)
    cache = model.score([[1, 2]], probes=Probes.of("output")).info["cache"]
    assert cache["layers"] == [number for number, kind in enumerate(model.config.kinds, 1) if kind.caches_text]
    assert cache["head_dim"] == [8 if kind.window is None else 4 for kind in model.config.kinds if kind.caches_text]
    assert cache["kv_heads"] == (1 if raw is SHARED else [4, 2, 4, 4, 2])
    memory = KVMemory.from_info({"cache": cache})
    assert sum(memory.layer_bytes(layer, 7) for layer in range(6)) == model.config.kv_bytes(7)
    assert memory.mib(7) == model.config.kv_bytes(7) / 2**20


def test_a_description_with_sizes_of_other_layers_is_refused():
    sizes = {"layers": [1, 2], "kv_heads": 1, "head_dim": [8, 4], "bytes": 4}
    assert Cache.model_validate(sizes).head_dim == [8, 4]
    with pytest.raises(ValueError, match="head_dim has 1 sizes; it must have one for each of 2 layers"):
        Cache.model_validate(sizes | {"head_dim": [8]})
