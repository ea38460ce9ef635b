"""What the attention operations share: their result, their visibility rule, their scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .moments import FLOOR, MASKED, Moments
from .soft_cap import soft_capped


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionMoments:
    """What each query head's attention weights say of themselves.

    Attributes:
      entropy: −Σ a ln a over the visible keys, nats.
      entropy_normalized: the same / ln(visible keys); 0 where at most one key is visible.
      varentropy: Σ a (ln a + entropy)², nats².
      entropy_no_sink: entropy of the weights without the first visible key, renormalised, nats.
      sink_mass: weight on the first visible key.
    """

    entropy: Float[Array, "*r"]
    entropy_normalized: Float[Array, "*r"]
    varentropy: Float[Array, "*r"]
    entropy_no_sink: Float[Array, "*r"]
    sink_mass: Float[Array, "*r"]

    @classmethod
    def of(
        cls, whole: Moments, sink_score: Float[Array, "*r"], rest: Moments, visible: Int[Array, "*#r"]
    ) -> AttentionMoments:
        """From the moments of all visible keys, the first one's score, the moments of the others, and their count."""
        log_keys = jnp.log(jnp.maximum(visible, 2).astype(jnp.float32))
        entropy = whole.entropy
        sink_mass = jnp.exp(jnp.maximum(sink_score - whole.m, FLOOR)) * whole.p_max
        return cls(
            entropy=entropy,
            entropy_normalized=jnp.where(visible > 1, entropy / log_keys, 0.0),
            varentropy=whole.varentropy,
            entropy_no_sink=rest.entropy,
            sink_mass=sink_mass,
        )


def positions(q: Float[Array, "B T N H"], start: Int[Array, "*b"] | int) -> Int[Array, "B T"]:
    """Positions of queries from `start` on, one for all rows or one for each."""
    return jnp.broadcast_to(jnp.asarray(start).reshape(-1, 1), q.shape[:2]) + jnp.arange(q.shape[1])


def visible_keys(
    position: Int[Array, "*r"], keys: int, window: int | None
) -> tuple[Bool[Array, "*r S"], Int[Array, "*r"], Int[Array, "*r"]]:
    """Which of `keys` cache slots a query sees: its own position and those before it, within its window.

    Args:
      position: of each query; −1 sees nothing.
      keys: number of cache slots.
      window: sliding window in keys, or None.

    Returns:
      (mask over the slots, the first visible slot, the number of visible slots).
    """
    slots = jnp.arange(keys)
    first = jnp.zeros_like(position) if window is None else jnp.maximum(position - window + 1, 0)
    mask = (slots <= position[..., None]) & (slots >= first[..., None])
    return mask, first, position + 1 - first


def visible_groups(
    groups: Bool[Array, "*r M"], keys: int
) -> tuple[Bool[Array, "*r S"], Int[Array, "*r"], Int[Array, "*r"]]:
    """The same of queries that see whole groups of keys: S/M of them each, one group after another.

    Args:
      groups: the groups each query sees.
      keys: S.
    """
    size = keys // groups.shape[-1]
    mask = jnp.repeat(groups, size, axis=-1)
    return mask, jnp.argmax(mask, axis=-1), groups.sum(axis=-1) * size


def scores_of(
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K S H"],
    *,
    scale: float,
    soft_cap: float | None,
) -> Float[Array, "B K G T S"]:
    """Scaled, soft-capped, unmasked attention scores in float32."""
    scores = jnp.einsum("bkgth,bksh->bkgts", q, k, preferred_element_type=jnp.float32) * scale
    return soft_capped(scores, soft_cap)


def grouped(q: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K G T H"]:
    """Query heads beside the key/value head they share."""
    b, t, n, h = q.shape
    return q.reshape(b, t, kv_heads, n // kv_heads, h).transpose(0, 2, 3, 1, 4)


def ungrouped(x: Array) -> Array:
    """[B, K, G, T, …] → [B, T, N, …]."""
    b, k, g, t, *rest = x.shape
    return jnp.moveaxis(x, 3, 1).reshape(b, t, k * g, *rest)


def one_query(attend: Callable[..., Any]) -> Callable[..., Any]:
    """decode_attention from a function of queries [B, T, N, H]: T = 1, at the last of each row's `lengths` slots."""

    def decode_attention(q, k, v, lengths, **options):
        result = attend(q[:, None], k, v, lengths - 1, **options)
        return jax.tree.map(lambda x: x[:, 0], result)

    return decode_attention


def masked(scores: Float[Array, "*s"], mask: Bool[Array, "*#s"]) -> Float[Array, "*s"]:
    """Scores with what is not visible marked absent."""
    return jnp.where(mask, scores, MASKED)
