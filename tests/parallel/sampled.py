"""Draws of uncertainty samplers on four devices, which do not divide the vocabulary, against one device."""

import dataclasses
import functools

import jax
import numpy as np

from jaxtrace import Dslider, Entropix, Probes, decode_step, init_params, init_state
from jaxtrace.models.families import FAMILIES
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.parallel.sharded_families import small

PROBES = Probes.of("output")
ROWS, STEPS = 4, 5


def check():
    """Raise AssertionError if a draw, a quadrant or an entropy differs."""
    config = FAMILIES["llama"].decoder_config(small("llama"), "llama")
    params = jax.tree.map(lambda x: x * (8 if x.ndim > 2 else 1), init_params(config, jax.random.key(0), stacked=True))
    mesh = fit_mesh(make_mesh("data=2,model=2"), config)
    for sampler in (Entropix(pause=3), Dslider(support=20, pause=3, outlier_bias=-5.0)):
        step = functools.partial(decode_step, config=config, probes=PROBES, sampler=sampler)

        @jax.jit
        def steps(params, state, step=step):
            return jax.lax.scan(lambda state, _: step(params, state), state, length=STEPS)[1]

        state = init_state(config, params, ROWS, 16, PROBES, sampler=sampler)
        state = dataclasses.replace(state, token=np.arange(ROWS, dtype=np.int32))
        expected = steps(params, state)
        shardings = param_shardings(config, mesh, stacked=True), state_shardings(state, mesh)
        with jax.set_mesh(mesh):
            computed = steps(*jax.device_put((params, state), shardings))
        np.testing.assert_array_equal(computed.token, expected.token)
        np.testing.assert_array_equal(computed.quadrant, expected.quadrant)
        np.testing.assert_allclose(computed.entropy, expected.entropy, atol=1e-4)
