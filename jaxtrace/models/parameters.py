"""Parameters of a decoder's modules. Weights are [out, in], as checkpoints store them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jaxtrace.models.config import INIT_STD

FLOAT32 = ("selection_bias",)  # parameters of at least float32 in every decoder, as in transformers


def param_dtype(path: tuple[Any, ...], dtype: Any) -> jnp.dtype:
    """Return the dtype of a parameter of a decoder with some dtype; `path` is JAX's."""
    precise = getattr(path[-1], "key", None) in FLOAT32
    return jnp.promote_types(dtype, jnp.float32) if precise else jnp.dtype(dtype)


def random_weight(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    """Draw a weight: normal with standard deviation `INIT_STD`."""
    return nnx.Param(jax.random.normal(rngs.params(), shape) * INIT_STD)


def optional_bias(exists: bool, *shape: int) -> nnx.Param | None:
    """Return a bias of zeros, or None if the module has none."""
    return nnx.Param(jnp.zeros(shape)) if exists else None


def add_bias(x: Array, bias: nnx.Param | None) -> Array:
    """Return x + bias, or x without a bias."""
    return x if bias is None else x + bias[...]


def tanh_gated(x: Array, gate: nnx.Param | None) -> Array:
    """Return tanh(gate) · x, or x without a gate."""
    return x if gate is None else jnp.tanh(gate[...]) * x
