"""States of delta nets on several devices against states on one device: padding, finished rows, and a decode step."""

import dataclasses

import jax
import numpy as np

from jaxtrace import Probes, decode_step, init_params, init_state, score_step
from jaxtrace.models.cache import recurrent_states
from jaxtrace.models.config import LayerKind
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.engine.reference import assert_same
from tests.engine.test_hybrid import HYBRID, RECURRENT

CONFIG = dataclasses.replace(HYBRID, num_layers=3, pattern=(RECURRENT, LayerKind()))
PROBES = Probes.of("output", "attention", "dispersion", attention_rows=((2, 2),))
ROWS = 4
COUNT = np.array([5, 0, 3, 6], np.int32)


def check(text="data=2,model=4"):
    """Raise AssertionError if a state or a trace differs on a mesh; on the default one two devices share a key head."""
    params = init_params(CONFIG, jax.random.key(0), stacked=True)
    params = jax.tree.map(lambda x: x * (8 if x.ndim > 2 else 1), params)
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (ROWS, 6), dtype=np.int32)
    state = init_state(CONFIG, params, ROWS, 16, PROBES)
    static = {"config": CONFIG, "probes": PROBES}

    @jax.jit
    def run(params, state):
        state, scored = score_step(params, state, tokens, COUNT, tokens, **static)
        fed, decoded = decode_step(params, dataclasses.replace(state, active=COUNT < 6), **static)
        return state.cache, fed.cache, scored, decoded

    mesh = fit_mesh(make_mesh(text), CONFIG)
    shardings = param_shardings(CONFIG, mesh, stacked=True), state_shardings(state, mesh)
    expected = run(params, state)
    with jax.set_mesh(mesh):
        computed = run(*jax.device_put((params, state), shardings))
    before, after = (recurrent(cache) for cache in computed[:2])
    for cache, other in zip((before, after), map(recurrent, expected[:2]), strict=True):
        for x, y in zip(cache, other, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5)
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x[3], y[3])  # a finished row
        assert not x[1].any() and y[1].any()  # a row that had no token yet
    for trace, other in zip(computed[2:], expected[2:], strict=True):
        assert_same(metrics(trace), metrics(other))


def recurrent(cache):
    """Return the arrays of the delta nets' states, with the rows first."""
    stacked, tail = (jax.tree.leaves(recurrent_states(entries)) for entries in (cache.repeated, cache.tail))
    return [np.asarray(x).swapaxes(0, 1) for x in stacked] + [np.asarray(x) for x in tail]


def metrics(trace):
    return {name: np.asarray(x) for name, x in trace.arrays.items()}
