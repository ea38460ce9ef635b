"""The lens at some layers and steps, of rows at different steps: four devices and stacked layers against one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrace import Probes, decode_step, init_params, init_state, score_step
from jaxtrace.models.decoder import stack_layers
from jaxtrace.models.families import FAMILIES
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.parallel.sharded_families import small

SPARSE = Probes.of("output", "lens", lens_layers=(1,), lens_every=3)
ROWS, TOKENS, STEPS = 4, 5, 4


def check():
    """Raise AssertionError if a trace differs."""
    rng = np.random.default_rng(0)
    config = FAMILIES["llama"].decoder_config(small("llama"), "llama")
    params = jax.tree.map(lambda x: x * (8 if x.ndim > 2 else 1), init_params(config, jax.random.key(0)))
    stacked = stack_layers(config, params)
    tokens, count = rng.integers(0, config.vocab_size, (ROWS, TOKENS), dtype=np.int32), np.full(ROWS, TOKENS, np.int32)
    first = jnp.array([0, 1, 5, 5], jnp.int32)

    def traced(params, state, probes):
        static = {"config": config, "probes": probes}
        state, scored = jax.jit(functools.partial(score_step, **static))(params, state, tokens, count, tokens)
        step = functools.partial(decode_step, params, **static)
        drawn = jax.jit(lambda state: jax.lax.scan(lambda state, _: step(state), state, length=STEPS)[1])(state)
        return {
            name: np.concatenate([x, np.moveaxis(drawn.arrays[name], 0, 1)], 1) for name, x in scored.arrays.items()
        }

    def state(params, probes=SPARSE):
        return init_state(config, params, ROWS, 16, probes, first=first)

    whole = dataclasses.replace(SPARSE, lens_every=1)
    expected = traced(params, state(params, whole), whole)
    taken = (np.arange(TOKENS + STEPS) - np.asarray(first)[:, None]) % 3 == 0
    mesh = fit_mesh(make_mesh("data=2,model=2"), config)
    shardings = param_shardings(config, mesh, stacked=True), state_shardings(state(stacked), mesh)
    with jax.set_mesh(mesh):
        sharded = traced(*jax.device_put((stacked, state(stacked)), shardings), SPARSE)
    for found in (traced(params, state(params), SPARSE), traced(stacked, state(stacked), SPARSE), sharded):
        for name, want in expected.items():
            if name.startswith("lens"):
                missing = -1 if want.dtype.kind == "i" else np.nan
                want = np.where(taken[..., None], want, missing)
            np.testing.assert_allclose(found[name], want, atol=1e-4, rtol=1e-4, err_msg=name)
