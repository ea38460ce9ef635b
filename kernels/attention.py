"""What the attention operations share: their result, their visibility rule, their scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import core
from jaxtyping import Array, Bool, Float, Int

from .dispatch import Unsupported
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionSums:
    """What an implementation of an attention operation returns.

    Attributes:
      out: the attention's output, zeros for a query that sees nothing.
      sink: score of the first visible key; `MASKED` where there is none. None without moments.
      rest: moments of the scores of the other visible keys. None without moments.
    """

    out: Float[Array, "*r H"]
    sink: Float[Array, "*r"] | None
    rest: Moments | None

    def result(self, visible: Int[Array, "*#r"]) -> tuple[Float[Array, "*r H"], AttentionMoments | None]:
        """The output and the finished moments, given how many keys each query sees."""
        if self.sink is None or self.rest is None:
            return self.out, None
        whole = with_sink(self.rest, self.sink)
        log_keys = jnp.log(jnp.maximum(visible, 2).astype(jnp.float32))
        return self.out, AttentionMoments(
            entropy=whole.entropy,
            entropy_normalized=jnp.where(visible > 1, whole.entropy / log_keys, 0.0),
            varentropy=whole.varentropy,
            entropy_no_sink=self.rest.entropy,
            sink_mass=sink_weight(whole, self.sink),
        )


def with_sink(rest: Moments, sink: Float[Array, "*r"]) -> Moments:
    """Moments of one more score; `MASKED` adds nothing."""
    none = jnp.zeros_like(sink)
    return rest.merge(Moments(sink, jnp.where(sink > MASKED, 1.0, 0.0), none, none, rest.r[..., :0]))


def sink_weight(whole: Moments, sink: Float[Array, "*r"]) -> Float[Array, "*r"]:
    """Weight of the first visible key."""
    return jnp.exp(jnp.maximum(sink - whole.m, FLOOR)) * whole.p_max


def positions(q: Float[Array, "B T N H"], start: Int[Array, "*b"] | int) -> Int[Array, "B T"]:
    """Positions of queries from `start` on, one for all rows or one for each."""
    return jnp.broadcast_to(jnp.asarray(start).reshape(-1, 1), q.shape[:2]) + jnp.arange(q.shape[1])


def visible_keys(
    position: Int[Array, "*r"], keys: int, window: int | None
) -> tuple[Bool[Array, "*r S"], Int[Array, "*r"]]:
    """Which of `keys` cache slots a query sees: its own position and those before it, within its window.

    Args:
      position: of each query; −1 sees nothing.
      keys: number of cache slots.
      window: sliding window in keys, or None.

    Returns:
      (mask over the slots, the first visible slot).
    """
    slots = jnp.arange(keys)
    first = first_visible(position, window)
    return (slots <= position[..., None]) & (slots >= first[..., None]), first


def first_visible(position: Int[Array, "*r"], window: int | None) -> Int[Array, "*r"]:
    """The first key that a query at each position sees."""
    return jnp.zeros_like(position) if window is None else jnp.maximum(position - window + 1, 0)


def visible_count(position: Int[Array, "*r"], window: int | None) -> Int[Array, "*r"]:
    """How many keys a query at each position sees."""
    return position + 1 if window is None else jnp.minimum(position + 1, window)


def visible_groups(groups: Bool[Array, "*r M"], keys: int) -> tuple[Bool[Array, "*r S"], Int[Array, "*r"]]:
    """The same of queries that see whole groups of keys: S/M of them each, one group after another.

    Args:
      groups: the groups each query sees.
      keys: S.
    """
    mask = jnp.repeat(groups, keys // groups.shape[-1], axis=-1)
    return mask, jnp.argmax(mask, axis=-1)


def scores_of(
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K H S"],
    *,
    scale: float,
    soft_cap: float | None,
) -> Float[Array, "B K G T S"]:
    """Scaled, soft-capped, unmasked attention scores in float32."""
    scores = jnp.einsum("bkgth,bkhs->bkgts", q, k, preferred_element_type=jnp.float32) * scale
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
        return jax.tree.map(lambda x: x[:, 0], attend(q[:, None], k, v, lengths - 1, **options))

    return decode_attention


def masked(scores: Float[Array, "*s"], mask: Bool[Array, "*#s"]) -> Float[Array, "*s"]:
    """Scores with what is not visible marked absent."""
    return jnp.where(mask, scores, MASKED)


def check_shapes(
    name: str, q: Array, k: Array, v: Array | None, rows: Array | None = None, window: int | None = None
) -> None:
    """Raises ValueError, in one line, where the arguments of an attention operation do not agree.

    Args:
      name: of the operation.
      q: queries [B, T, N, H].
      k, v: [B, K, H, S] and [B, K, S, H].
      rows: a whole number for each row.
      window: in keys.
    """
    if q.ndim != 4 or k.ndim != 4 or k.shape[::2] != (q.shape[0], q.shape[3]) or 0 in k.shape:
        raise ValueError(f"{name}: queries {q.shape} and keys {k.shape} do not agree; keys are [B, K, H, S]")
    if v is not None and v.shape != (*k.shape[:2], k.shape[3], k.shape[2]):
        raise ValueError(
            f"{name}: keys {k.shape} and values {v.shape} do not agree; they are [B, K, H, S], [B, K, S, H]"
        )
    if q.shape[2] % k.shape[1]:
        raise ValueError(f"{name}: {q.shape[2]} query heads cannot share {k.shape[1]} key/value heads evenly")
    if rows is not None and (rows.shape != q.shape[:1] or not jnp.issubdtype(rows.dtype, jnp.integer)):
        raise ValueError(f"{name}: {rows.dtype} {rows.shape} for {q.shape[0]} rows; give each one whole number")
    if window is not None and window < 1:
        raise ValueError(f"{name}: a window of {window} keys sees nothing; give 1 or more, or None")


def check_within(name: str, lengths: Array, slots: int) -> None:
    """Raises ValueError for a known length beyond the cache; one under a trace is not known."""
    if not isinstance(lengths, core.Tracer) and (longest := int(jnp.max(lengths, initial=0))) > slots:
        raise ValueError(f"{name}: length {longest} is beyond the {slots} slots of the cache")


def each_row(start: Array | int, rows: int) -> Int[Array, " B"]:
    """One number for each row, from one for all or from as many."""
    start = jnp.asarray(start)
    return jnp.broadcast_to(start, rows) if start.ndim == 0 else start


def only_xla(name: str, implementation: str | None) -> None:
    """Raises Unsupported for another implementation asked for by name where heads are split over devices."""
    if implementation not in (None, "xla"):
        raise Unsupported(f"{name}: {implementation}: cannot join heads that are split over devices; there is: xla")
