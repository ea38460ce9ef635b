"""Compiled steps on eight devices: logits, keys and attention weights stay on their devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrace import DecoderConfig, Probes, Sample, init_state, score_step, stop_rules
from jaxtrace.engine.loop import decode_chunk
from jaxtrace.models.decoder import abstract_params
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.parallel import collectives

# Fewer key/value heads than devices along "model", and a vocabulary that these do not divide.
CONFIG = DecoderConfig("llama", 4099, 64, 2, 8, 2, 16, 128, 4096, tied=True)
PROBES = Probes(top_tokens=5, residuals=(1,), attention_rows=((2, 3),))
MESH = "data=2,model=4"
ROWS, SLOTS, TOKENS = 4, 512, 32


def check():
    """Raise AssertionError if devices exchange too much."""
    mesh = fit_mesh(make_mesh(MESH), CONFIG)
    place = functools.partial(jax.tree.map, lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where))
    params = place(abstract_params(CONFIG, stacked=True), param_shardings(CONFIG, mesh, stacked=True))
    with jax.set_mesh(mesh):
        state = jax.eval_shape(lambda params: init_state(CONFIG, params, ROWS, SLOTS, PROBES), params)
        state = place(state, state_shardings(state, mesh))
        static = {"config": CONFIG, "probes": PROBES}
        sampler = Sample(temperature=0.8, top_k=20, top_p=0.9, min_p=0.01)
        decode = decode_chunk.lower(params, state, stop_rules(), sampler=sampler, steps=8, **static)
        check_one(decode, 1)
        tokens, count = jax.ShapeDtypeStruct((ROWS, TOKENS), jnp.int32), np.full(ROWS, TOKENS, np.int32)
        score = jax.jit(functools.partial(score_step, **static)).lower(params, state, tokens, count, tokens)
        check_one(score, TOKENS)


def check_one(lowered, tokens):
    collectives.check(lowered.compile().as_text(), CONFIG, ROWS, tokens, SLOTS)
