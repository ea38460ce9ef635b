"""The image encoder against transformers (eager, float32), and the weights of a whole checkpoint."""

import functools

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxtrace
from jaxtrace.models import vision
from jaxtrace.models.decoder import as_module
from tests.models import mllama_reference
from tests.models.parity import assert_relative

RATIOS_OF_TWO = {"max_num_tiles": 2, "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}
CASES = {
    # 9 patches and the class token: each tile has 6 padding vectors
    "one tile": ({}, [[(1, 1)]]),
    "shapes of several tiles": ({}, [[(2, 2)], [(1, 3)], [(4, 1)]]),
    "two images, and one": ({}, [[(1, 1), (2, 1)], [(1, 2)]]),
    # 16 patches and the class token: 7 padding vectors
    "other patches, tiles and outputs": (
        RATIOS_OF_TWO
        | {"image_size": 20, "patch_size": 5, "intermediate_layers_indices": [3, 0, 1]}
        | {"vision_output_dim": 64, "attention_heads": 4, "norm_eps": 1e-2, "num_global_layers": 1},
        [[(1, 2)], [(1, 1)]],
    ),
    # 4 patches and the class token: 3 padding vectors
    "one output, one channel": (
        {"image_size": 12, "patch_size": 6, "num_channels": 1, "intermediate_layers_indices": [2]}
        | {"vision_output_dim": 32},
        [[(2, 2)], [(1, 4)]],
    ),
}


def saved(directory, **changes):
    """Save a reference model; return it with the config and parameters loaded from its checkpoint."""
    reference = mllama_reference.tiny(**changes)
    reference.save_pretrained(directory)
    model = jaxtrace.load(str(directory))
    return reference, model.config, model.params


# Without optimisation: a shorter compile time, the same operations.
@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def encode(config, params, *images):
    return as_module(config, params).vision(*images)


@pytest.mark.parametrize("case", CASES)
def test_vectors_agree_with_transformers(case, rng, tmp_path):
    changes, shapes = CASES[case]
    reference, config, params = saved(tmp_path, vision=changes)
    images = mllama_reference.images(rng, reference.config.vision_config, shapes)
    assert_relative(encode(config, params, *images), mllama_reference.encode(reference, *images), case)


def test_vectors_do_not_depend_on_the_number_of_queries_at_once(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(vision, "QUERIES", 24)  # does not divide the 64 vectors
    encode.clear_cache()
    reference, config, params = saved(tmp_path)
    images = mllama_reference.images(rng, reference.config.vision_config, [[(1, 3)]])
    assert_relative(encode(config, params, *images), mllama_reference.encode(reference, *images), "24 queries")


def test_padding_tiles_and_absent_images_do_not_change_vectors(rng, tmp_path):
    _, config, params = saved(tmp_path)
    vision_config = mllama_reference.config().vision_config
    two = mllama_reference.images(rng, vision_config, [[(1, 2), (2, 2)], [(3, 1)]])
    alone = encode(config, params, *(x[:1, :1] for x in two))
    together = encode(config, params, *two)
    np.testing.assert_allclose(together[:1, : alone.shape[1]], alone, atol=1e-5)
    absent = [np.array(x) for x in two]
    absent[2][1, 1] = False  # an absent image without any tile
    assert np.isfinite(encode(config, params, *absent)).all()


def test_parameters_load_from_names_on_disk_and_in_memory(tmp_path):
    reference, _, params = saved(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    memory = {name: weight.detach().numpy() for name, weight in reference.named_parameters()}
    assert "language_model.model.layers.1.cross_attn.q_proj.weight" in stored
    assert "model.language_model.layers.1.cross_attn.q_proj.weight" in memory
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(array.size for array in memory.values())
    old = stored | {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    for names in (memory, old):
        save_file({name: array.copy() for name, array in names.items()}, tmp_path / "model.safetensors")
        jax.tree.map(np.testing.assert_array_equal, jaxtrace.load(str(tmp_path)).params, params)


def test_only_cross_attention_layers_have_gates(tmp_path):
    reference, _, params = saved(tmp_path)
    layers = reference.model.language_model.layers
    for i, block in enumerate(params["layers"]):
        assert ("attention_gate" in block) == ("q_norm" in block["attention"]) == (i in (1, 3))
    for i in (1, 3):
        assert params["layers"][i]["attention_gate"] == layers[i].cross_attn_attn_gate.item()
        assert params["layers"][i]["feed_forward_gate"] == layers[i].cross_attn_mlp_gate.item()
