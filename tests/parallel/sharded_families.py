"""Traces of a small model of every family on several devices against traces on one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrace import Probes, init_state, score_step
from jaxtrace.models.decoder import init_params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.images import Images
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.engine.reference import assert_same
from tests.models.cases import GEMMA4_EXPERTS, SEEING, SMALL

# The models have 4 query heads and 2 key/value heads, each of which is on two devices of this mesh. It does not divide
# the vocabulary of 41.
MESH = "data=2,model=4"
ROWS, TOKENS, SLOTS = 4, 5, 16
PROBES = Probes(alphas=(2.0,), top_tokens=3, top_k_mass=4, attention_rows=((1, 1), (1, 2)), lens_renyi=True)

# Half of the rows are longer than the original context.
LONG = {"rope_type": "longrope", "short_factor": [1, 1, 2, 2], "long_factor": [2, 4, 8, 8]}
LONG["original_max_position_embeddings"] = TOKENS + 1
CHANGES = {"llama": {"rope_parameters": LONG}}  # of the config that `small` returns


def check(family, *meshes):
    """Raise AssertionError if a trace of the family's small model differs on one of the meshes."""
    rng = np.random.default_rng(0)
    config = FAMILIES[family].decoder_config(small(family) | CHANGES.get(family, {}), family)
    random = init_params(config, jax.random.key(0), stacked=True)
    params = jax.tree.map(lambda x: jnp.float32(x + rng.normal(0, 0.2 if x.ndim > 2 else 0.05, x.shape)), random)
    tokens = rng.integers(0, config.vocab_size, (ROWS, TOKENS), dtype=np.int32)
    visible = None if config.vision is None else rng.random((ROWS, TOKENS, config.vision.max_tiles)) < 0.5
    probes = dataclasses.replace(PROBES, experts=config.chosen_experts > 0)
    lengths = TOKENS + np.arange(ROWS)  # of the prompts that the tokens begin
    state = init_state(
        config, params, ROWS, SLOTS, probes, images=images(config, rng), text_length=lengths, prompt_length=lengths // 2
    )
    step = functools.partial(score_step, config=config, probes=probes)

    def traced(params, state):
        _, trace = jax.jit(step)(params, state, tokens, np.full(ROWS, TOKENS, np.int32), tokens, visible)
        return {name: np.asarray(x) for name, x in trace.arrays.items()}

    expected = traced(params, state)
    for text in meshes or [MESH]:
        mesh = fit_mesh(make_mesh(text), config)
        shardings = param_shardings(config, mesh, stacked=True), state_shardings(state, mesh)
        with jax.set_mesh(mesh):
            assert_same(traced(*jax.device_put((params, state), shardings)), expected)


def small(family):
    """Return a config.json of the family with two layers."""
    if family == "mllama":
        return SEEING | {"text_config": SEEING["text_config"] | {"num_hidden_layers": 2, "cross_attention_layers": [1]}}
    if family == "gemma4_text":  # as many key/value heads as parts in one layer, and half as many in the others
        types = ["sliding_attention", "full_attention", "full_attention"]
        sizes = {"num_key_value_heads": 4, "num_global_key_value_heads": 2, "attention_k_eq_v": True}
        sizes |= GEMMA4_EXPERTS
        layers = {"num_hidden_layers": 3, "num_kv_shared_layers": 1, "layer_types": types}
        return {"model_type": family, **SMALL[family], **sizes, **layers}
    if family.startswith(("qwen3_5", "qwen3_next")):  # the first layer has attention
        sizes = {"num_hidden_layers": 2, "layer_types": ["full_attention", "linear_attention"]}
        return {"model_type": family, **SMALL[family], **sizes}
    return {"model_type": family, **SMALL[family], "n_layer" if family == "gpt2" else "num_hidden_layers": 2}


def images(config, rng):
    """Return an image of one tile for every row; None for a decoder without an image encoder."""
    if config.vision is None:
        return None
    tiles, size = config.vision.max_tiles, config.vision.image_size
    pixels = rng.normal(size=(ROWS, 1, tiles, config.vision.channels, size, size))
    return Images(np.float32(pixels), np.ones((ROWS, 1), np.int32), np.arange(tiles)[None, None].repeat(ROWS, 0) < 1)
