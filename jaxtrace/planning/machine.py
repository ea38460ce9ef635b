"""Memory bandwidth and arithmetic rate of the default device, measured in a few seconds."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtrace.kernels import softmax_moments

TRIAD_ENTRIES = 1 << 27  # 512 MiB per float32 array, so that a triad touches 1.5 GiB
MATMUL_SIZE = 2048
MOMENT_SHAPE = (64, 32_768)
ACCELERATOR_MATMUL_SIZE = 8192  # large enough that the product dominates the launch


@functools.lru_cache
def bandwidth(entries: int | None = None) -> float:
    """Return the bytes per second of a triad over arrays of float32 that should be larger than the caches."""
    triad = jax.jit(lambda x, y: x + 3.0 * y)
    x, y = (jnp.full(entries or TRIAD_ENTRIES, value, jnp.float32) for value in (1.0, 2.0))
    return 3 * x.nbytes / _fastest(lambda: triad(x, y).block_until_ready())


@functools.lru_cache
def product_rate(dtype: str, size: int | None = None) -> float:
    """Return the operations per second of a square matrix product; float32 is multiplied in full float32."""
    size = size or (MATMUL_SIZE if jax.default_backend() == "cpu" else ACCELERATOR_MATMUL_SIZE)
    product = jax.jit(functools.partial(jnp.matmul, precision="highest" if dtype == "float32" else None))
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    return 2 * size**3 / _fastest(lambda: product(x, x).block_until_ready())


@functools.lru_cache
def moment_rate() -> float:
    """Return the logits per second whose moments XLA computes from memory: entropy, varentropy and the largest."""
    logits = jax.random.normal(jax.random.key(0), MOMENT_SHAPE)
    moments = jax.jit(lambda x: softmax_moments(x, implementation="xla"))
    return logits.size / _fastest(lambda: jax.block_until_ready(moments(logits)))


def _fastest(call: Callable[[], object], repeats: int = 7) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
