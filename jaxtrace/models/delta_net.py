"""Gated delta nets: linear attention whose state is a matrix of each head (Yang et al. 2024)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import linear
from jaxtrace.models.cache import RecurrentState
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.parameters import random_weight


class GatedDeltaNet(nnx.Module):
    """Gated delta rule over keys and values that a short causal convolution mixes; the output has a gated norm."""

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs) -> None:
        assert kind.delta_net is not None
        self.net = net = kind.delta_net
        d, n, w = config.embed_dim, net.value_heads, net.value_dim
        self.eps = config.norm_eps
        self.qkv = random_weight(rngs, net.channels, d)
        self.z = random_weight(rngs, n, w, d)
        self.a, self.b = random_weight(rngs, n, d), random_weight(rngs, n, d)
        self.conv = random_weight(rngs, net.channels, net.conv)
        self.decay, self.step = nnx.Param(jnp.zeros(n)), nnx.Param(jnp.ones(n))
        self.norm = nnx.Param(jnp.ones(w))
        self.o = random_weight(rngs, d, n, w)

    def __call__(
        self, x: Float[Array, "B T D"], state: RecurrentState, count: Int[Array, " B"]
    ) -> tuple[Float[Array, "B T D"], RecurrentState]:
        net, (rows, length, _) = self.net, x.shape
        k, h, n, w = net.key_heads, net.key_dim, net.value_heads, net.value_dim
        fed = jnp.concatenate([state.conv.astype(x.dtype), linear(x, self.qkv[...])], axis=1)
        latest = count[:, None] + jnp.arange(net.conv - 1)
        conv = jnp.take_along_axis(fed, latest[..., None], axis=1).astype(state.conv.dtype)
        mixed = sum(fed[:, i : i + length] * self.conv[...][:, i] for i in range(net.conv))
        q, keys, v = jnp.split(jax.nn.silu(mixed).astype(jnp.float32), [k * h, 2 * k * h], axis=-1)
        q, keys = (_unit(y.reshape(rows, length, k, h)).repeat(n // k, axis=2) for y in (q, keys))
        v = v.reshape(rows, length, n, w)
        rate = jax.nn.softplus(linear(x, self.a[...], jnp.float32) + self.step[...])
        decay = jnp.exp(-jnp.exp(self.decay[...].astype(jnp.float32)) * rate)
        beta = jax.nn.sigmoid(linear(x, self.b[...], jnp.float32))
        fresh = jnp.arange(length) < count[:, None]

        def position(memory: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
            q, k, v, decay, beta, fresh = inputs
            new = memory * decay[..., None, None]
            new = new + k[..., None] * ((v - (new * k[..., None]).sum(-2)) * beta[..., None])[..., None, :]
            return jnp.where(fresh[:, None, None, None], new, memory), (new * (q * h**-0.5)[..., None]).sum(-2)

        over_time = [jnp.moveaxis(y, 1, 0) for y in (q, keys, v, decay, beta, fresh)]
        memory, out = jax.lax.scan(position, state.memory, tuple(over_time))
        out = jnp.moveaxis(out, 0, 1)
        out = self.norm[...] * out * jax.lax.rsqrt(jnp.square(out).mean(-1, keepdims=True) + self.eps)
        z = linear(x, self.z[...].reshape(n * w, -1), jnp.float32).reshape(out.shape)
        out = (out * jax.nn.silu(z)).astype(x.dtype).reshape(rows, length, n * w)
        return linear(out, self.o[...].reshape(-1, n * w)), RecurrentState(conv, memory)


def _unit(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)
