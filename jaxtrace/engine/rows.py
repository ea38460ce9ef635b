"""Selection of whole rows of a batch."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def select_rows(rows: Bool[Array, " B"], if_true: Any, if_false: Any) -> Any:
    """Select whole rows from one of two pytrees of arrays that have the rows first."""

    def select(x: Array, y: Array) -> Array:
        return jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return jax.tree.map(select, if_true, if_false)
