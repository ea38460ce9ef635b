"""Deterministic runs on a mesh that splits the batch: bits of prompts together, alone, and in another order."""

import jax
import numpy as np

from jaxtrace import Model, Probes, init_params
from jaxtrace.parallel.mesh import fit_mesh, make_mesh
from jaxtrace.parallel.sharding import param_shardings
from tests.engine.conftest import CONFIG

LENGTHS = (5, 40, 17, 23, 9)


def check():
    """Raise AssertionError if a metric differs in a bit."""
    mesh = fit_mesh(make_mesh("data=2"), CONFIG)
    params = init_params(CONFIG, jax.random.key(0))
    model = Model("tiny", CONFIG, jax.device_put(params, param_shardings(CONFIG, mesh)))
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, CONFIG.vocab_size, size).tolist() for size in LENGTHS]

    def rows(prompts):
        probes = Probes.of("output", "hidden")
        return model.generate(prompts, max_new_tokens=8, probes=probes, deterministic=True).rows

    together = rows(prompts)
    for others in (rows(prompts[::-1])[::-1], rows(prompts[:1])):
        for one, other in zip(together, others, strict=False):
            for name, x in one.metrics.items():
                assert x.tobytes() == other.metrics[name].tobytes(), name
