"""A model with ablated blocks and heads and a tuned lens: four devices against one."""

import functools

import jax
import numpy as np

from jaxtrace import Interventions, Probes, init_params, init_state, score_step
from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import place_translators
from jaxtrace.models.families import FAMILIES
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.parallel.sharded_families import small

PROBES = Probes.of("output", "lens")
ROWS, TOKENS = 4, 5


def check():
    """Raise AssertionError if a trace differs."""
    rng = np.random.default_rng(0)
    config = FAMILIES["gemma2"].decoder_config(small("gemma2"), "gemma2")
    params = jax.tree.map(lambda x: x * (8 if x.ndim > 2 else 1), init_params(config, jax.random.key(0), stacked=True))
    tokens, count = rng.integers(0, config.vocab_size, (ROWS, TOKENS), dtype=np.int32), np.full(ROWS, TOKENS, np.int32)
    masks = Interventions.of(config, [2], [(1, 0), (1, 3)])
    lens = Translators(*(rng.normal(0, 0.1, x.shape) for x in vars(Translators.zeros(config)).values()))
    step = jax.jit(functools.partial(score_step, config=config, probes=PROBES))

    def traced(params, state):
        _, trace = step(params, state, tokens, count, tokens, None, masks, place_translators(lens, params))
        return {name: np.asarray(x) for name, x in trace.arrays.items()}

    state = init_state(config, params, ROWS, 16, PROBES)
    expected = traced(params, state)
    mesh = fit_mesh(make_mesh("data=2,model=2"), config)
    shardings = param_shardings(config, mesh, stacked=True), state_shardings(state, mesh)
    with jax.set_mesh(mesh):
        computed = traced(*jax.device_put((params, state), shardings))
    for name, values in expected.items():
        np.testing.assert_allclose(computed[name], values, atol=1e-4, rtol=1e-5, err_msg=name)
