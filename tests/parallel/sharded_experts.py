"""Experts on meshes of one to eight devices against one device: scored texts, and generated texts whose rows refill."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrace import Model, Probes, init_params
from jaxtrace.models.config import Experts
from jaxtrace.models.decoder import stack_layers
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings
from tests.engine.conftest import CONFIG
from tests.engine.reference import assert_same
from tests.parallel import sharded_families

MESHES = (
    "data=1,model=1",
    "data=2",
    "model=2",
    "model=4",
    "data=4,model=1",
    "data=2,model=2",
    "data=4,model=2",
    "data=2,model=4",
)
ROUTED = dataclasses.replace(CONFIG, num_heads=4, kv_heads=2, num_layers=2, experts=Experts(8, 3, 16))
PROBES = Probes.of("output", "attention", "hidden")
LENGTHS = (3, 9, 1, 7, 5)


def check():
    """Raise AssertionError if a trace differs."""
    sharded_families.check("qwen3_moe", *MESHES)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, ROUTED.vocab_size, length).tolist() for length in LENGTHS]
    random = init_params(ROUTED, jax.random.key(0))
    params = jax.tree.map(lambda x: x * (8 if x.ndim > 1 else 1), random)
    alone = [_generated(params, [prompt]).rows[0] for prompt in prompts]
    for dtype in (jnp.float32, jnp.bfloat16):
        stacked = jax.tree.map(functools.partial(jnp.asarray, dtype=dtype), stack_layers(ROUTED, params))
        for text in MESHES if dtype == jnp.float32 else MESHES[-1:]:
            mesh = fit_mesh(make_mesh(text), ROUTED)
            placed = jax.device_put(stacked, param_shardings(ROUTED, mesh, stacked=True))
            rows = _generated(placed, prompts).rows
            for row, want in zip(rows, alone, strict=True):
                if dtype == jnp.float32:
                    assert_same(row.metrics, want.metrics)
                else:
                    np.testing.assert_allclose(row.metrics["entropy"][0], want.metrics["entropy"][0], atol=0.1)


def _generated(params, prompts):
    """Generate two rows at a time, each for another number of tokens."""
    return Model("experts", ROUTED, params).generate(
        prompts, max_new_tokens=6, probes=PROBES, batch_size=2, stop_tokens=tuple(range(8))
    )
