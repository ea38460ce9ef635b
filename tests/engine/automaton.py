"""A model with a known continuation: after token i it draws `after[i]`, whatever the context."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrace import DecoderConfig, Model, init_params


def automaton(after, context=64, stop_tokens=()):
    """Return a model of one zero layer between a one-hot embedding and a permuted unembedding."""
    size = len(after)
    config = DecoderConfig("llama", size, size, 1, 1, 1, 2, 4, context)
    params = jax.tree.map(jnp.zeros_like, init_params(config, jax.random.key(0)))
    unembedding = np.zeros((size, size), np.float32)
    unembedding[after, np.arange(size)] = 4
    params |= {
        "embedding": jnp.eye(size),
        "unembedding": jnp.asarray(unembedding),
        "final_norm": {"weight": jnp.ones(size)},
    }
    return Model("automaton", config, params, stop_tokens=tuple(stop_tokens))
