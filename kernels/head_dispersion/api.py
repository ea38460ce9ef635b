"""head_dispersion: how differently the heads of a layer look."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..attention import check_shapes, check_within, each_row, only_xla
from ..dispatch import Operation
from . import gpu, reference, tpu, xla

OPERATION = Operation.of_modules("head_dispersion", tpu=tpu, gpu=gpu, xla=xla, reference=reference)

Kind = Literal["std", "var", "cv", "fano", "range"]


def head_dispersion(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K H S"],
    start: Int[Array, ""] | Int[Array, " B"] | int,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
) -> Float[Array, "B T"]:
    """Generalised Jensen–Shannon divergence over the heads of a layer: H(mean_h a_h) − mean_h H(a_h).

    It is 0 where all heads look at the same keys alike and ln N where each looks at keys of its own: where heads look,
    not how broadly.

    Args:
      q: queries at positions start … start + T − 1; N is a multiple of K.
      k: the cache, slots last; slots past a query's position may hold anything finite.
      start: position of the first query, for all rows or for each.
      scale, window, soft_cap: as in `prefill_attention`.
      axis_name: mesh axis, or axes, within `jax.shard_map`, over which the heads are split evenly: `q` and `k` are this
        device's heads, and all devices get the layer's result. Only "xla" serves it: devices sum the heads' mixture
        [B, T, S], which the other kernels never write out.
      implementation: its name; None for the platform's default.

    Returns:
      The divergence of every query in nats, within 2e-5 of float64; 0 for a query that sees nothing.

    Raises:
      Unsupported: the implementation asked for is not to be had.
      ValueError: shapes do not agree, or a position is beyond the cache.
    """
    start = each_row(start, len(q))
    check_shapes("head_dispersion", q, k, None, start, window)
    check_within("head_dispersion", start + q.shape[1], k.shape[3])
    options = {"scale": scale, "window": window, "soft_cap": soft_cap}
    if axis_name is not None:
        only_xla("head_dispersion", implementation)
        return xla.head_dispersion(q, k, start, axis_name=axis_name, **options)
    return OPERATION(q, k, start, implementation=implementation, **options)


def dispersion_of(values: Float[Array, "*r N"], kind: Kind = "std") -> Float[Array, "*r"]:
    """Dispersion over heads (the last axis) of a per-head quantity, as of its population.

    `kind`: "std" (the head dispersion index), "var", "cv" (std / mean), "fano" (var / mean), "range" (max − min).
    Those that divide give 0 where the mean is 0.
    """
    mean, var = jnp.mean(values, axis=-1), jnp.var(values, axis=-1)
    std = jnp.where(var == 0, 0.0, jnp.sqrt(jnp.where(var == 0, 1.0, var)))  # a root has no gradient at 0
    divisor = jnp.where(mean == 0, 1.0, mean)
    match kind:
        case "std":
            return std
        case "var":
            return var
        case "cv":
            return std / divisor
        case "fano":
            return var / divisor
        case "range":
            return jnp.max(values, axis=-1) - jnp.min(values, axis=-1)
        case _:
            raise ValueError(f"dispersion_of: no kind {kind!r}; there are: std, var, cv, fano, range")
