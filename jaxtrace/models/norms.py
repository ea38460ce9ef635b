"""Norms, computed in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.vision_config import VisionConfig


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · (offset + weight), computed in float32; the mean is over the axes of the weight.

    Without a weight the factor is 1, and the mean is over the last axis.
    """

    def __init__(self, config: DecoderConfig, *shape: int, weighted: bool = True) -> None:
        self.weight = nnx.Param(jnp.full(shape, 1.0 - config.norm_offset)) if weighted else None
        self.axes = tuple(range(-len(shape), 0))
        self.eps = config.norm_eps
        self.offset = config.norm_offset

    def __call__(self, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
        full = x.astype(jnp.float32)
        full = full * jax.lax.rsqrt(jnp.mean(jnp.square(full), axis=self.axes, keepdims=True) + self.eps)
        if self.weight is None:
            return full.astype(x.dtype)
        weight = self.weight[...]
        if self.offset:
            return (full * (self.offset + weight.astype(jnp.float32))).astype(x.dtype)
        return full.astype(x.dtype) * weight


class LayerNorm(nnx.Module):
    """(x − mean) / √(variance + ε) · weight + bias, computed in float32."""

    def __init__(self, config: DecoderConfig | VisionConfig, width: int) -> None:
        self.weight = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = config.norm_eps

    def __call__(self, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
        full = x.astype(jnp.float32)
        full = full - jnp.mean(full, axis=-1, keepdims=True)
        full = full * jax.lax.rsqrt(jnp.mean(jnp.square(full), axis=-1, keepdims=True) + self.eps)
        return (full * self.weight[...] + self.bias[...]).astype(x.dtype)


def stream_norm(config: DecoderConfig) -> RMSNorm | LayerNorm:
    """Build a norm over the residual stream."""
    return (LayerNorm if config.norm == "layer" else RMSNorm)(config, config.embed_dim)


def qk_norm(config: DecoderConfig, kind: LayerKind, heads: int) -> RMSNorm | None:
    """Build the norm over queries or keys; layers of cross-attention always have one."""
    if config.qk_norm == "width":
        return RMSNorm(config, heads, config.head_dim)
    if config.qk_norm == "rotated":
        return None if kind.rope is None else RMSNorm(config, config.head_dim, weighted=False)
    return RMSNorm(config, config.head_dim) if config.qk_norm or kind.cross_attention else None


def normed(x: Array, norm: RMSNorm | LayerNorm | None) -> Array:
    """Return norm(x), or x without a norm."""
    return x if norm is None else norm(x)
