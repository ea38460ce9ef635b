"""The plain samplers, and the cuts that others share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.samplers.protocol import Drawn, Sampler
from jaxtrace.errors import ConfigError
from jaxtrace.kernels import softmax_moments
from jaxtrace.kernels.moments import MASKED

MAGNITUDE = 2**31 - 1  # the bits of a float without its sign


@dataclass(frozen=True)
class Greedy(Sampler):
    """The most likely token, the lowest id among equals."""

    def __call__(
        self,
        logits: Float[Array, "B V"],
        keys: Key[Array, " B"] | None = None,
        metrics: StepTrace | None = None,
        state: Any = None,
    ) -> Drawn:
        return Drawn(softmax_moments(logits).top1)


@dataclass(frozen=True)
class Sample(Sampler):
    """Draws from softmax(logits / temperature), cut by top-k, then top-p, then min-p.

    Attributes:
      temperature: above 0.
      top_k: keep this many most likely tokens; 0 keeps all.
      top_p: keep the smallest set of most likely tokens whose probability reaches this.
      min_p: keep tokens at least this fraction as likely as the most likely one.

    Raises:
      ConfigError: a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature} must be above 0; use the greedy sampler for 0")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ConfigError("a sampler needs top_k >= 0, 0 < top_p <= 1 and 0 <= min_p <= 1")

    def __call__(
        self,
        logits: Float[Array, "B V"],
        keys: Key[Array, " B"],
        metrics: StepTrace | None = None,
        state: Any = None,
    ) -> Drawn:
        return Drawn(jax.vmap(jax.random.categorical)(keys, self.processed(logits)).astype(jnp.int32))

    def processed(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """The logits that are drawn from: cut tokens at −1e30."""
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            logits = most_likely(logits, self.top_k)
        if self.top_p < 1:
            logits = nucleus(logits, self.top_p)
        if self.min_p > 0:
            logits = likely(logits, self.min_p)
        return logits


def most_likely(logits: Float[Array, "B V"], top_k: Float[Array, " B"] | float) -> Float[Array, "B V"]:
    """The logits, but −1e30 of all but so many most likely tokens and their equals."""
    return _cut(logits, jnp.ones_like(logits), top_k)


def nucleus(logits: Float[Array, "B V"], top_p: Float[Array, " B"] | float) -> Float[Array, "B V"]:
    """The logits, but −1e30 outside the smallest set of most likely tokens whose probability reaches `top_p`."""
    return _cut(logits, jax.nn.softmax(logits, axis=-1), top_p)


def likely(logits: Float[Array, "B V"], min_p: Float[Array, " B"] | float) -> Float[Array, "B V"]:
    """The logits, but −1e30 of tokens less than `min_p` times as likely as the most likely one."""
    least = jnp.max(logits, axis=-1) + jnp.log(min_p)
    return jnp.where(logits < least[:, None], MASKED, logits)


def _cut(
    logits: Float[Array, "B V"], weights: Float[Array, "B V"], limit: Float[Array, " B"] | float
) -> Float[Array, "B V"]:
    """The logits, but −1e30 where those above have a weight of `limit` or more together.

    What is kept is found by halving the range of floats, in whose order their bits are: that takes sums alone, and so
    stays on a vocabulary's devices, which a sort would gather.
    """
    bits = jax.lax.bitcast_convert_type(logits, jnp.int32)
    order = jnp.where(bits < 0, bits ^ MAGNITUDE, bits)

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)
        few = jnp.sum(jnp.where(order > middle[:, None], weights, 0), axis=-1) < limit
        return jnp.where(few, low, middle + 1), jnp.where(few, middle, high)

    ends = jnp.full(len(logits), -MAGNITUDE - 1, jnp.int32), jnp.full(len(logits), MAGNITUDE, jnp.int32)
    least, _ = jax.lax.fori_loop(0, 32, halved, ends)
    return jnp.where(order < least[:, None], MASKED, logits)
