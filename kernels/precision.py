"""Matrix products in full float32 where an operand is float32, unless JAX's own setting says otherwise.

By default JAX multiplies float32 in one bfloat16 pass on a TPU and in TF32 on a GPU. Products of shorter floats are
exact at any precision, so theirs is the default, at no cost.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def einsum(equation: str, x: Array, y: Array, dtype: Any = None) -> Array:
    """Return `jnp.einsum` of two arrays in `dtype`, by default their own, at `product_precision`."""
    return jnp.einsum(equation, x, y, precision=product_precision(x, y), preferred_element_type=dtype)


def product_precision(*operands: Array) -> jax.lax.Precision | None:
    """Return the precision of a product; None, where `jax.default_matmul_precision` is set, leaves it to JAX."""
    if all(x.dtype != jnp.float32 for x in operands):
        return jax.lax.Precision.DEFAULT
    return jax.lax.Precision.HIGHEST if _setting() is None else None


def mosaic_precision(*operands: Array) -> jax.lax.Precision:
    """Return `product_precision` for a TPU kernel: Mosaic has one bfloat16 pass and full float32, nothing between."""
    precision = product_precision(*operands)
    if precision is None:
        one_pass = _setting() in ("default", "fastest", "bfloat16")
        return jax.lax.Precision.DEFAULT if one_pass else jax.lax.Precision.HIGHEST
    return precision


def at_precision(name: str) -> AbstractContextManager[Any]:
    """Return the context that sets `jax.default_matmul_precision`; "auto" leaves it as it is."""
    return nullcontext() if name == "auto" else jax.default_matmul_precision(name)


def precision_name(dtype: jnp.dtype) -> str:
    """Return the name of the precision at which operands of a dtype are multiplied now."""
    return _setting() or ("highest" if dtype == jnp.float32 else "default")


def _setting() -> str | None:
    """Return JAX's setting, the context's or the process's. It is a part of the cache key of every jitted function."""
    config: Any = jax.config
    return config.jax_default_matmul_precision
