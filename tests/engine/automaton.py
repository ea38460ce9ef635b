"""A model whose continuation is known by construction: after token i it draws `after[i]`, whatever came before."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrace import DecoderConfig, Model, init_params


def automaton(after, context=64, stop_tokens=()):
    """One layer that adds nothing to the residual stream, between an embedding of unit vectors and its permutation."""
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
