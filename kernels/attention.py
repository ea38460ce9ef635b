"""Results, visibility rule, scores and argument checks that the attention operations share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp
from jax import core
from jaxtyping import Array, Bool, Float, Int

from .dispatch import Unsupported
from .moments import FLOOR, MASKED, Moments
from .precision import einsum
from .soft_cap import Cap, soft_capped

Queries = Float[Array, "B T N H"]
Keys = Float[Array, "B K H S"]
Values = Float[Array, "B K S H"]
Mask = Bool[Array, "B T S"]  # keys that each query sees
PerQuery = Int[Array, "B T"]
Starts = Int[Array, " B"]  # an integer for each row, such as the position of its first query


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Visibility of chunked attention: a query sees the keys of its own chunk of `size` positions, up to its own."""

    size: int


Window = int | Chunk | None  # number of keys that a query sees, itself included; None for all


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionMoments:
    """Moments of each query head's attention weights; 0 for a query that sees no key.

    Quantities of single positions are NaN for keys without positions, such as the ones of an image.

    Attributes:
      entropy: −Σ a ln a over the visible keys, nats.
      entropy_normalized: entropy / ln(visible keys); 0 where at most one key is visible.
      varentropy: Σ a (ln a + entropy)², nats².
      entropy_no_sink: entropy of the weights with position 0 excluded and the others renormalised, nats; equal to
        `entropy` for a query that does not see position 0.
      sink_mass: weight on position 0; 0 for a query that does not see it.
      attention_self: weight on the query's own position.
      attention_previous: weight on the position before the query's own; 0 for a query that does not see it.
      attention_prompt_mass: weight on the positions of the prompt; 1 if every position belongs to it.
      attention_max: largest weight.
      learned_sink_mass: softmax weight of the head's learned sink beside the visible keys; all other moments are over
        the keys alone. None without a learned sink.
    """

    entropy: Float[Array, "*r"]
    entropy_normalized: Float[Array, "*r"]
    varentropy: Float[Array, "*r"]
    entropy_no_sink: Float[Array, "*r"]
    sink_mass: Float[Array, "*r"]
    attention_self: Float[Array, "*r"]
    attention_previous: Float[Array, "*r"]
    attention_prompt_mass: Float[Array, "*r"]
    attention_max: Float[Array, "*r"]
    learned_sink_mass: Float[Array, "*r"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PositionSums:
    """Scores and mass of single positions; a score is `MASKED` for a query that does not see its key.

    Attributes:
      sink: score of position 0.
      own: score of the query's own position.
      previous: score of the position before the query's own.
      prompt_mass: softmax weight of the prompt's positions; None if every position belongs to the prompt.
    """

    sink: Float[Array, "*r"]
    own: Float[Array, "*r"]
    previous: Float[Array, "*r"]
    prompt_mass: Float[Array, "*r"] | None

    def weights(self, all_keys: Moments) -> tuple[Float[Array, "*r"], ...]:
        """Return the weights of position 0, the own and the previous position, and of the prompt."""
        prompt_mass = all_keys.l * all_keys.p_max if self.prompt_mass is None else self.prompt_mass
        scores = self.sink, self.own, self.previous
        return *(weight_of(score, all_keys) for score in scores), jnp.minimum(prompt_mass, 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionSums:
    """Unfinished result of an attention operation, which every implementation returns.

    Attributes:
      output: attention output; zeros for a query that sees no key.
      no_sink: moments of the scores of the visible keys other than position 0. None without moments.
      positions: scores and mass of single positions. None without moments, and for keys without positions.
      logsumexp: ln Σ e^score over the visible keys, if it is requested; moments give it too.
    """

    output: Float[Array, "*r H"]
    no_sink: Moments | None = None
    positions: PositionSums | None = None
    logsumexp: Float[Array, "*r"] | None = None

    def result(
        self, visible: Int[Array, "*#r"], learned_sink: Float[Array, " N"] | None = None
    ) -> tuple[Float[Array, "*r H"], AttentionMoments | None]:
        """Return the output and the finished moments.

        Args:
          visible: number of keys each query sees.
          learned_sink: logit of each head's learned sink, or None. It takes its share of the output, which is all of it
            for a query that sees no key.
        """
        all_keys, logsumexp = self.no_sink, self.logsumexp
        if all_keys is not None:
            all_keys = all_keys if self.positions is None else merge_sink(all_keys, self.positions.sink)
            logsumexp = all_keys.logsumexp
        output, learned_sink_mass = self.output, None
        if learned_sink is not None:
            assert logsumexp is not None
            lead = learned_sink.astype(jnp.float32) - logsumexp
            learned_sink_mass = jax.nn.sigmoid(lead)
            output = (output * jax.nn.sigmoid(-lead)[..., None]).astype(output.dtype)
        if self.no_sink is None or all_keys is None:
            return output, None
        no_position = (jnp.full_like(all_keys.l, jnp.nan),) * 4
        sink, own, previous, prompt = no_position if self.positions is None else self.positions.weights(all_keys)
        log_visible = jnp.log(jnp.maximum(visible, 2).astype(jnp.float32))
        return output, AttentionMoments(
            entropy=all_keys.entropy,
            entropy_normalized=jnp.where(visible > 1, all_keys.entropy / log_visible, 0.0),
            varentropy=all_keys.varentropy,
            entropy_no_sink=self.no_sink.entropy,
            sink_mass=sink,
            attention_self=own,
            attention_previous=previous,
            attention_prompt_mass=prompt,
            attention_max=all_keys.p_max,
            learned_sink_mass=learned_sink_mass,
        )


def merge_sink(no_sink: Moments, sink_score: Float[Array, "*r"]) -> Moments:
    """Return the moments of a row with one more score; a score of `MASKED` adds nothing."""
    zero = jnp.zeros_like(sink_score)
    return no_sink.merge(Moments(sink_score, jnp.where(sink_score > MASKED, 1.0, 0.0), zero, zero, no_sink.r[..., :0]))


def weight_of(score: Float[Array, "*r"], all_keys: Moments) -> Float[Array, "*r"]:
    """Return the softmax weight of a score among scores with the moments `all_keys`, at most the largest weight."""
    return jnp.exp(jnp.clip(score - all_keys.m, FLOOR, 0.0)) * all_keys.p_max


def positions(q: Queries, start: Int[Array, "*b"] | int) -> PerQuery:
    """Return the position of each query; the first one is at `start`, a number for all rows or one per row."""
    return jnp.broadcast_to(jnp.asarray(start).reshape(-1, 1), q.shape[:2]) + jnp.arange(q.shape[1])


def visible_keys(position: Int[Array, "*r"], keys: int, window: Window) -> Bool[Array, "*r S"]:
    """Return the mask over the cache slots that a query sees: up to its own, in its window or chunk."""
    slots = jnp.arange(keys)
    return (slots <= position[..., None]) & (slots >= first_visible(position, window)[..., None])


def first_visible(position: Int[Array, "*r"], window: Window) -> Int[Array, "*r"]:
    """Return the first key that a query at each position sees."""
    if window is None:
        return jnp.zeros_like(position)
    return jnp.maximum(position - (position % window.size if isinstance(window, Chunk) else window - 1), 0)


def visible_count(position: Int[Array, "*r"], window: Window) -> Int[Array, "*r"]:
    """Return the number of keys that a query at each position sees."""
    if isinstance(window, Chunk):
        return position + 1 - first_visible(position, window)
    return position + 1 if window is None else jnp.minimum(position + 1, window)


def visible_groups(groups: Bool[Array, "*r M"], keys: int) -> Bool[Array, "*r S"]:
    """Return the mask over the keys of queries that see whole groups of S/M consecutive keys."""
    return jnp.repeat(groups, keys // groups.shape[-1], axis=-1)


def key_scores(
    q: Queries, k: Keys, slot: PerQuery, visible: Bool[Array, "B T"], *, scale: float, soft_cap: Cap
) -> Float[Array, "B T N"]:
    """Return the score of each query with the key of one slot; `MASKED` where it is not visible."""
    b, t, n, h = q.shape
    key = jnp.take_along_axis(k, jnp.clip(slot, 0, k.shape[3] - 1)[:, None, None], axis=3)
    scores = einsum("btkgh,bkht->btkg", q.reshape(b, t, k.shape[1], -1, h), key, jnp.float32).reshape(b, t, n)
    return mask_scores(soft_capped(scores * scale, soft_cap), visible[..., None])


def attention_scores(
    q: Float[Array, "B K G T H"], k: Keys, *, scale: float, soft_cap: Cap
) -> Float[Array, "B K G T S"]:
    """Return scaled, soft-capped, unmasked attention scores in float32."""
    scores = einsum("bkgth,bkhs->bkgts", q, k, jnp.float32) * scale
    return soft_capped(scores, soft_cap)


def group_heads(q: Queries, kv_heads: int) -> Float[Array, "B K G T H"]:
    """Return the queries with their heads grouped by the key/value head they share."""
    b, t, n, h = q.shape
    return q.reshape(b, t, kv_heads, n // kv_heads, h).transpose(0, 2, 3, 1, 4)


def ungroup_heads(x: Array) -> Array:
    """Reshape [B, K, G, T, …] to [B, T, N, …]."""
    b, k, g, t, *trailing = x.shape
    return jnp.moveaxis(x, 3, 1).reshape(b, t, k * g, *trailing)


def mask_scores(scores: Float[Array, "*s"], mask: Bool[Array, "*#s"]) -> Float[Array, "*s"]:
    """Return the scores with invisible ones set to `MASKED`."""
    return jnp.where(mask, scores, MASKED)


def decode_from_prefill(attend: Callable[..., AttentionSums]) -> Callable[..., AttentionSums]:
    """Return decode_attention, made of attention of queries [B, T, N, H]: T = 1, at the last of each row's slots."""

    def decode_attention(
        q: Float[Array, "B N H"], k: Keys, v: Values, lengths: Starts, **options: Any
    ) -> AttentionSums:
        return jax.tree.map(lambda x: x[:, 0], attend(q[:, None], k, v, lengths - 1, **options))

    return decode_attention


def check_shapes(
    name: str,
    q: Array,
    k: Array,
    v: Array | None,
    rows: Array | None = None,
    window: Window = None,
    learned_sink: Array | None = None,
    prompt_length: Array | None = None,
) -> None:
    """Raise ValueError unless queries [B, T, N, H], keys [B, K, H, S], values [B, K, S, H] and integers [B] agree."""
    if q.ndim != 4 or k.ndim != 4 or k.shape[::2] != (q.shape[0], q.shape[3]) or 0 in k.shape:
        raise ValueError(
            f"{name}: queries {q.shape} and keys {k.shape} do not agree; give [B, T, N, H] and [B, K, H, S]"
        )
    if v is not None and v.shape != (*k.shape[:2], k.shape[3], k.shape[2]):
        raise ValueError(
            f"{name}: keys {k.shape} and values {v.shape} do not agree; give [B, K, H, S] and [B, K, S, H]"
        )
    if q.shape[2] % k.shape[1]:
        raise ValueError(
            f"{name}: {q.shape[2]} query heads cannot share {k.shape[1]} key/value heads evenly; "
            "give a multiple of the key/value heads"
        )
    for what, x in (("positions", rows), ("prompt lengths", prompt_length)):
        if x is not None and (x.shape != q.shape[:1] or not jnp.issubdtype(x.dtype, jnp.integer)):
            raise ValueError(f"{name}: {what} are {x.dtype} {x.shape}; give one integer to each of {len(q)} rows")
    if (size := window.size if isinstance(window, Chunk) else window) is not None and size < 1:
        raise ValueError(f"{name}: window is {size}, which sees no key; give 1 or more, or None")
    if learned_sink is not None and learned_sink.shape != q.shape[2:3]:
        raise ValueError(
            f"{name}: learned sinks are {learned_sink.shape}; give one to each of {q.shape[2]} query heads"
        )


def check_capacity(name: str, lengths: Array, slots: int) -> None:
    """Raise ValueError for a length beyond the cache; a traced length is unknown and passes."""
    if not isinstance(lengths, core.Tracer) and (longest := int(jnp.max(lengths, initial=0))) > slots:
        raise ValueError(
            f"{name}: length {longest} is beyond the {slots} slots of the cache; give shorter rows or a larger cache"
        )


@overload
def int_per_row(x: Array | int, rows: int) -> Int[Array, " B"]: ...


@overload
def int_per_row(x: Array | int | None, rows: int) -> Int[Array, " B"] | None: ...


def int_per_row(x: Array | int | None, rows: int) -> Int[Array, " B"] | None:
    """Return one integer per row, from one for all rows or from one per row; None for None."""
    x = None if x is None else jnp.asarray(x)
    return jnp.broadcast_to(x, rows) if x is not None and x.ndim == 0 else x


def require_xla(name: str, implementation: str | None) -> None:
    """Raise Unsupported if the caller names an implementation that cannot join heads split over devices."""
    if implementation not in (None, "xla"):
        raise Unsupported(f"{name}: {implementation} cannot join heads that are split over devices; use xla")
