"""Comparison of a model with a reference run, for live references and for golden files."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtrace.kernels import Chunk

from jaxtrace import Probes
from jaxtrace.engine.measure import forward_flags, measure
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.decoder import is_stacked
from jaxtrace.models.forward import forward
from tests.engine.reference import RELATIVE, assert_metrics, metrics

PROMPT = 5  # positions of the prompt of every sequence


def everything(config, params, tokens):
    """Return metrics, logits and residual streams of every position of sequences [B, T]."""
    batch, length = tokens.shape
    probes = Probes(experts=config.chosen_experts > 0)
    start = jnp.zeros(batch, jnp.int32)
    cache = empty_cache(config, batch, length, stacked=is_stacked(params))
    prompt_length = jnp.full(batch, PROMPT)
    result = forward(config, params, tokens, cache, start, prompt_length=prompt_length, **forward_flags(config, probes))
    before = jnp.zeros((batch, config.num_layers + 1, config.embed_dim))
    following = jnp.roll(tokens, -1, axis=1)
    trace, drawable = measure(config, params, result, before, start, probes, targets=following, keep_logits=True)
    return trace.arrays, drawable.logits, jnp.moveaxis(result.stream, 0, 2)


# Without optimisation: half the compile time, the same operations.
compiled = jax.jit(everything, static_argnames="config", compiler_options={"xla_backend_optimization_level": 0})


def windows(config):
    """Return which keys a query of each layer sees, for `reference.metrics`."""
    return [kind.window if kind.chunk is None else Chunk(kind.chunk) for kind in config.kinds]


def assert_parity(model, tokens, run):
    """Assert that logits, residual streams and metrics of one sequence agree with a reference run."""
    computed = compiled(model.config, model.params, jnp.array([tokens]))
    trace, logits, stream = jax.tree.map(lambda x: x[0], computed)
    assert_relative(logits, run.logits, "logits")
    for layer in range(model.config.num_layers + 1):
        assert_relative(stream[:, layer], run.hidden[:, layer], f"hidden state {layer}")
    expected = metrics(run, np.roll(tokens, -1), windows=windows(model.config), prompt_length=PROMPT)
    del expected["token"]
    if run.experts is not None:
        np.testing.assert_array_equal(*(np.sort(x, axis=-1) for x in (trace.pop("experts"), run.experts)))
    assert_metrics(trace, expected, run.lens_logits)


def assert_relative(actual, expected, name):
    """Assert agreement within 1e-4 of the largest value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=RELATIVE * np.abs(expected).max(), err_msg=name)
