"""Head dispersion: how much the attention of a layer's heads differs."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..attention import Window, check_capacity, check_shapes, int_per_row, require_xla
from ..dispatch import Operation
from . import gpu, reference, tpu, xla

OPERATION = Operation.from_modules("head_dispersion", tpu=tpu, gpu=gpu, xla=xla, reference=reference)

Kind = Literal["std", "var", "cv", "fano", "range"]


def head_dispersion(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K H S"],
    start: Int[Array, ""] | Int[Array, " B"] | int,
    *,
    scale: float,
    window: Window = None,
    soft_cap: float | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
) -> Float[Array, "B T"]:
    """Return the generalised Jensen–Shannon divergence over the heads of a layer: H(mean_h a_h) − mean_h H(a_h).

    It is 0 if all heads have the same weights, and ln N if no key has weight from two heads. It measures where heads
    look, not how broadly. Other arguments, and errors, are as for `prefill_attention`.

    Args:
      q: queries at positions start … start + T − 1; N is a multiple of K.
      k: cached keys, slots last; slots past a query's position may hold any finite value.
      start: position of the first query, for all rows or per row.
      axis_name: mesh axis, or axes, within `jax.shard_map`, over which the heads are split evenly: `q` and `k` are this
        device's heads, and all devices get the layer's result. Only "xla" supports it: devices sum the heads' mixture
        [B, T, S], which the other kernels never write out.

    Returns:
      Divergence of every query in nats, within 2e-5 of float64; 0 for a query that sees no key.
    """
    start = int_per_row(start, len(q))
    check_shapes("head_dispersion", q, k, None, start, window)
    check_capacity("head_dispersion", start + q.shape[1], k.shape[3])
    options = {"scale": scale, "window": window, "soft_cap": soft_cap}
    if axis_name is not None:
        require_xla("head_dispersion", implementation)
        return xla.head_dispersion(q, k, start, axis_name=axis_name, **options)
    return OPERATION(q, k, start, implementation=implementation, **options)


def dispersion_of(values: Float[Array, "*r N"], kind: Kind = "std") -> Float[Array, "*r"]:
    """Return the population dispersion over heads (the last axis) of a per-head quantity.

    Args:
      values: one value per head.
      kind: "std" (head dispersion index), "var", "cv" (std / mean), "fano" (var / mean) or "range" (max − min).
        "cv" and "fano" are 0 where the mean is 0.

    Raises:
      ValueError: the kind is unknown.
    """
    mean, var = jnp.mean(values, axis=-1), jnp.var(values, axis=-1)
    std = jnp.where(var == 0, 0.0, jnp.sqrt(jnp.where(var == 0, 1.0, var)))  # a square root has no gradient at 0
    divisor = jnp.where(mean == 0, 1.0, mean)
    by_kind = {"std": std, "var": var, "cv": std / divisor, "fano": var / divisor, "range": jnp.ptp(values, axis=-1)}
    if kind not in by_kind:
        raise ValueError(f"dispersion_of: kind is {kind!r}; choose from {', '.join(by_kind)}")
    return by_kind[kind]
