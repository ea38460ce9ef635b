"""Gated delta nets: linear attention that keeps a matrix for each head (Yang et al. 2024, "Gated Delta Networks").

The memory S [H, W] of a value head follows the gated delta rule: S ← α S + k (β (v − α Sᵀ k))ᵀ, and its output is Sᵀ q,
with the decay α = exp(g) and the write strength β in [0, 1].
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.kernels import einsum, linear
from jaxtrace.models.activations import ACTIVATIONS
from jaxtrace.models.cache import RecurrentState
from jaxtrace.models.config import DecoderConfig, DeltaNet, LayerKind
from jaxtrace.models.norms import RMSNorm
from jaxtrace.models.on_mesh import ROW_AXES, dividing_axes, dividing_kv_head_axes, map_shards
from jaxtrace.models.parameters import random_weight

CHUNK = 64  # positions that are computed at once
UNIT_EPS = 1e-6  # constant in the normalisation of queries and keys
# Lowest log decay: its exponential is 0 in float32, and products of it with 0 stay finite.
LOWEST_LOG_DECAY = -104.0


class GatedDeltaNet(nnx.Module):
    """Gated delta net over queries, keys and values that a causal convolution mixes; its output has a gated norm.

    Weights are grouped by key head, since the G value heads of a key head are adjacent: values of one key head are
    [G · W]. A mesh splits the key heads.
    """

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs) -> None:
        assert kind.delta_net is not None
        self.net, self.activation = kind.delta_net, config.activation
        net = kind.delta_net
        d, k, n, h, c = config.embed_dim, net.key_heads, net.value_heads, net.key_dim, net.conv
        g, v = n // k, n // k * net.value_dim
        self.q, self.k = random_weight(rngs, k, h, d), random_weight(rngs, k, h, d)
        self.v, self.gate = random_weight(rngs, k, v, d), random_weight(rngs, k, v, d)
        self.q_conv, self.k_conv = random_weight(rngs, k, h, 1, c), random_weight(rngs, k, h, 1, c)
        self.v_conv = random_weight(rngs, k, v, 1, c)
        self.decay, self.beta = random_weight(rngs, k, g, d), random_weight(rngs, k, g, d)
        self.decay_scale, self.decay_bias = nnx.Param(jnp.zeros(n)), nnx.Param(jnp.ones(n))  # scale: its logarithm
        self.norm = RMSNorm(dataclasses.replace(config, norm_offset=0.0), net.value_dim)
        self.o = random_weight(rngs, d, k, v)

    def __call__(
        self, x: Float[Array, "B T D"], state: RecurrentState, count: Int[Array, " B"] | None
    ) -> tuple[Float[Array, "B T D"], RecurrentState]:
        """Run T positions of each row.

        Args:
          x: residual stream, normed.
          state: state before the positions.
          count: number of positions of each row that advance the state, the first ones; None for all. The outputs of
            other positions are meaningless, and a row of 0 positions keeps its state as it is.
        """
        inputs = _Inputs(
            jnp.concatenate([_project(x, self.q), _project(x, self.k), _project(x, self.v)], axis=-1),
            _project(x, self.decay, jnp.float32),
            _project(x, self.beta, jnp.float32),
        )
        weights = _Weights(
            jnp.concatenate([self.q_conv[...], self.k_conv[...], self.v_conv[...]], axis=1)[:, :, 0],
            self.decay_scale[...],
            self.decay_bias[...],
        )
        rows, heads = dividing_axes(ROW_AXES, len(x)), dividing_kv_head_axes(self.net.key_heads)
        of_inputs, of_memory = P(rows, None, heads), P(rows, heads)
        of_state: Any = RecurrentState(cast(Any, of_inputs), cast(Any, of_memory))
        specs = (of_inputs, P(heads), of_state, P(rows)), (of_inputs, of_state)
        mix = map_shards(functools.partial(_mix, self.net, self.activation), *specs)
        out, state = mix(inputs, weights, state, count)
        out = self.norm(out.astype(x.dtype)) * jax.nn.silu(_project(x, self.gate, jnp.float32).reshape(out.shape))
        d, k, v = self.o[...].shape
        return linear(out.astype(x.dtype).reshape(*x.shape[:2], k * v), self.o[...].reshape(d, k * v)), state


class _Inputs(NamedTuple):
    """Projections of the residual stream, by key head.

    Attributes:
      mixed: query, key and values before the convolution.
      decay: decay before its bias, float32.
      beta: logit of the write strength, float32.
    """

    mixed: Float[Array, "B T K X"]
    decay: Float[Array, "B T K G"]
    beta: Float[Array, "B T K G"]


class _Weights(NamedTuple):
    """Weights that are used head by head."""

    conv: Float[Array, "K X C"]
    decay_scale: Float[Array, " N"]
    decay_bias: Float[Array, " N"]


class DeltaInputs(NamedTuple):
    """Inputs of the gated delta rule, float32: G value heads share a query and a key.

    Attributes:
      q: queries.
      k: keys.
      v: values.
      log_decay: logarithm of the decay, at most 0.
      beta: write strength.
    """

    q: Float[Array, "B T K H"]
    k: Float[Array, "B T K H"]
    v: Float[Array, "B T K G W"]
    log_decay: Float[Array, "B T K G"]
    beta: Float[Array, "B T K G"]


def _mix(
    net: DeltaNet,
    activation: str,
    inputs: _Inputs,
    weights: _Weights,
    state: RecurrentState,
    count: Int[Array, " B"] | None,
) -> tuple[Float[Array, "B T N W"], RecurrentState]:
    """Run the convolution and the delta rule for the key heads of the inputs."""
    batch, length, key_heads, _ = inputs.mixed.shape
    groups, width = net.value_heads // net.key_heads, net.value_dim
    fed = jnp.concatenate([state.conv, inputs.mixed.astype(state.conv.dtype)], axis=1)
    conv = _last_inputs(fed, state.conv, count)
    taps = weights.conv.astype(jnp.float32)
    convolved = sum(fed[:, i : i + length].astype(jnp.float32) * taps[:, :, i] for i in range(net.conv))
    q, k, v = jnp.split(ACTIVATIONS[activation](convolved), [net.key_dim, 2 * net.key_dim], axis=-1)
    scale, bias = (w.astype(jnp.float32).reshape(key_heads, groups) for w in (weights.decay_scale, weights.decay_bias))
    log_decay = -jnp.exp(scale) * jax.nn.softplus(inputs.decay + bias)
    delta = DeltaInputs(
        _unit(q) * net.key_dim**-0.5,
        _unit(k),
        v.reshape(batch, length, key_heads, groups, width),
        jnp.maximum(log_decay, LOWEST_LOG_DECAY),
        jax.nn.sigmoid(inputs.beta),
    )
    if length == 1:
        out, memory = delta_step(delta, state.memory)
    else:
        counted = None if count is None else jnp.arange(length) < count[:, None]
        out, memory = delta_chunks(delta, state.memory, counted)
    if count is not None:
        memory = jnp.where((count > 0)[:, None, None, None, None], memory, state.memory)
    return out.reshape(batch, length, -1, width), RecurrentState(conv, memory)


def _last_inputs(fed: Float[Array, "B S K X"], old: Float[Array, "B C K X"], count: Int[Array, " B"] | None) -> Array:
    """Return the last inputs of the convolution, after `count` of the positions that follow the `old` ones."""
    kept = old.shape[1]
    if count is None:
        return fed[:, fed.shape[1] - kept :]
    if fed.shape[1] == kept + 1:
        return jnp.where((count > 0)[:, None, None, None], fed[:, 1:], old)
    return jnp.take_along_axis(fed, (count[:, None] + jnp.arange(kept))[:, :, None, None], axis=1)


def delta_step(
    inputs: DeltaInputs, memory: Float[Array, "B K G H W"]
) -> tuple[Float[Array, "B 1 K G W"], Float[Array, "B K G H W"]]:
    """Apply the gated delta rule at one position."""
    q, k, v, log_decay, beta = (x[:, 0] for x in inputs)
    decay = jnp.exp(log_decay)[..., None]
    # One query and key for each value head: XLA's CPU backend then reads the memory once, in a product. For 32 heads of
    # 128 × 128 that takes 0.05 ms, against 0.2 ms with shared ones and 3 ms with sums.
    readers = jnp.broadcast_to(jnp.stack([q, k], axis=2)[:, :, None], (*memory.shape[:3], 2, memory.shape[3]))
    read_q, read_k = jnp.moveaxis(einsum("...ih,...hw->...iw", readers, memory), -2, 0)
    written = beta[..., None] * (v - decay * read_k)
    out = decay * read_q + (q * k).sum(-1)[:, :, None, None] * written
    return out[:, None], memory * decay[..., None] + k[:, :, None, :, None] * written[..., None, :]


def delta_chunks(
    inputs: DeltaInputs, memory: Float[Array, "B K G H W"], counted: Bool[Array, "B T"] | None
) -> tuple[Float[Array, "B T K G W"], Float[Array, "B K G H W"]]:
    """Apply the gated delta rule to T positions, chunk by chunk.

    Within a chunk the written vectors solve a unit triangular system; the memory passes from chunk to chunk (Yang et
    al. 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length").

    Args:
      inputs: queries, keys, values, decays and write strengths.
      memory: memory before the positions, float32.
      counted: positions that advance the memory, the first ones of each row; None for all. The outputs of other
        positions are meaningless.
    """
    length = inputs.q.shape[1]
    inputs, nonfinite = _without_nonfinite(inputs)
    if counted is not None:
        counts = counted[:, :, None, None]
        nonfinite &= counts
        cleared = {name: jnp.where(counts, getattr(inputs, name), 0) for name in ("k", "log_decay", "beta")}
        inputs = inputs._replace(**cleared)
    size = min(CHUNK, length)
    q, k = (_chunked(x, size).swapaxes(-3, -2)[:, :, :, None] for x in (inputs.q, inputs.k))
    v = _chunked(inputs.v, size).transpose(0, 1, 3, 4, 2, 5)
    log_decay, beta = (_chunked(x, size).transpose(0, 1, 3, 4, 2) for x in (inputs.log_decay, inputs.beta))
    lower, strict = (jnp.tril(jnp.ones((size, size)), diagonal) for diagonal in (0, -1))
    # Sums of log decays from one position to another, each of its own terms: a difference of cumulative sums would lose
    # weak decays behind strong ones.
    decay = jnp.exp(einsum("it,...tj->...ij", lower, log_decay[..., None] * strict)) * lower
    from_start = jnp.exp(jnp.cumsum(log_decay, axis=-1))[..., None]
    system = einsum("...ih,...jh->...ij", k, k) * (decay * strict) * beta[..., None]
    weights = einsum("...ih,...jh->...ij", q, k) * decay
    targets = beta[..., None] * jnp.concatenate([v, k * from_start], axis=-1)
    solved = jax.lax.linalg.triangular_solve(system, targets, left_side=True, lower=True, unit_diagonal=True)
    values, keys = jnp.split(solved, [v.shape[-1]], axis=-1)
    readers = jnp.concatenate([q * from_start, keys], axis=-2)
    writers = k * decay[..., -1, :, None]

    def chunk(memory: Array, of_chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        readers, values, weights, writers, decay = of_chunk
        out, stored = jnp.split(einsum("...ih,...hw->...iw", readers, memory), 2, axis=-2)
        written = values - stored
        out = out + einsum("...ij,...jw->...iw", weights, written)
        return memory * decay[..., None] + einsum("...jh,...jw->...hw", writers, written), out

    memory, out = jax.lax.scan(chunk, memory, (readers, values, weights, writers, from_start[..., -1, :]))
    out = out.transpose(1, 0, 4, 2, 3, 5).reshape(len(memory), -1, *inputs.v.shape[2:])[:, :length]
    after_nonfinite = jnp.cumsum(nonfinite, axis=1, dtype=jnp.int32) > 0
    out = jnp.where(after_nonfinite[..., None], jnp.nan, out)
    return out, jnp.where(after_nonfinite[:, -1, ..., None, None], jnp.nan, memory)


def _without_nonfinite(inputs: DeltaInputs) -> tuple[DeltaInputs, Bool[Array, "B T K G"]]:
    """Return inputs that write nothing where they are not finite, and these positions.

    In the products of a chunk, 0 · NaN would spoil earlier positions too.
    """
    finite_k = jnp.isfinite(inputs.k).all(-1, keepdims=True)
    finite = finite_k & jnp.isfinite(inputs.v).all(-1) & jnp.isfinite(inputs.log_decay) & jnp.isfinite(inputs.beta)
    return inputs._replace(
        k=jnp.where(finite_k, inputs.k, 0),
        v=jnp.where(finite[..., None], inputs.v, 0),
        log_decay=jnp.where(finite, inputs.log_decay, 0),
        beta=jnp.where(finite, inputs.beta, 0),
    ), ~finite


def _chunked(x: Float[Array, "B T *r"], size: int) -> Float[Array, "C B S *r"]:
    """Return positions in chunks, the last one padded with zeros."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), *((0, 0),) * (x.ndim - 2)))
    return x.reshape(len(x), -1, size, *x.shape[2:]).swapaxes(0, 1)


def _unit(x: Float[Array, "*r H"]) -> Float[Array, "*r H"]:
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + UNIT_EPS)


def _project(x: Float[Array, "B T D"], weight: nnx.Param, dtype: Any = None) -> Float[Array, "B T K X"]:
    k, width, d = weight[...].shape
    return linear(x, weight[...].reshape(k * width, d), dtype).reshape(*x.shape[:2], k, width)
