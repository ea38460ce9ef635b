"""Caches with windows on several devices against one device: pieces and steps that move the kept positions."""

import dataclasses

import jax
import numpy as np

from jaxtrace import Probes, decode_step, init_state, score_step
from jaxtrace.models.decoder import init_params
from jaxtrace.models.stacked import StackedLayers
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.engine.reference import assert_same
from tests.models.test_window_cache import CONFIG, KINDS, SLOTS

CONFIG = dataclasses.replace(CONFIG, **KINDS["windows"])
PROBES = Probes.of("output", "attention", "dispersion")
ROWS, CHUNK = 4, 6
COUNTS = np.array([[6, 6, 6], [6, 5, 0], [6, 6, 1], [2, 0, 3]], np.int32).T  # rows move by different distances


def check(text="data=2,model=4"):
    """Raise AssertionError if a trace differs on a mesh; on the default one two devices share a key head."""
    params = init_params(CONFIG, jax.random.key(0), stacked=True)
    params = jax.tree.map(lambda x: x * (8 if x.ndim > 2 else 1), params)
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (3, ROWS, CHUNK), dtype=np.int32)
    state = init_state(CONFIG, params, ROWS, SLOTS, PROBES, chunk=CHUNK)
    static = {"config": CONFIG, "probes": PROBES}

    @jax.jit
    def run(params, state):
        def piece(state, of_piece):
            tokens, count = of_piece
            return score_step(params, state, tokens, count, tokens, **static)

        state, scored = jax.lax.scan(piece, state, (tokens, COUNTS))
        _, decoded = jax.lax.scan(lambda state, _: decode_step(params, state, **static), state, length=9)
        assert isinstance(state.cache, StackedLayers)
        return state.cache.repeated[0].offset, scored, decoded

    mesh = fit_mesh(make_mesh(text), CONFIG)
    shardings = param_shardings(CONFIG, mesh, stacked=True), state_shardings(state, mesh)
    offset, *traces = run(params, state)
    assert len({*np.asarray(offset[0]).tolist()}) > 1
    with jax.set_mesh(mesh):
        _, *computed = run(*jax.device_put((params, state), shardings))
    for trace, other in zip(computed, traces, strict=True):
        assert_same(metrics(trace), metrics(other))


def metrics(trace):
    return {name: np.asarray(x) for name, x in trace.arrays.items()}
