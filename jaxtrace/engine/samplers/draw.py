"""Greedy and temperature sampling, and the filters (top-k, top-p, min-p) that other samplers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.samplers.protocol import Sampler, SamplerOutput
from jaxtrace.kernels import softmax_moments
from jaxtrace.kernels.moments import MASKED
from jaxtrace.settings.sampling import SamplingSettings
from jaxtrace.settings.validation import set_checked

DEFAULTS = SamplingSettings()
MAGNITUDE = 2**31 - 1  # the bits of a float without its sign


@dataclass(frozen=True)
class Greedy(Sampler):
    """Takes the most likely token, the lowest id among equals."""

    def __call__(
        self,
        logits: Float[Array, "B V"],
        keys: Key[Array, " B"] | None = None,
        metrics: StepTrace | None = None,
        state: Any = None,
    ) -> SamplerOutput:
        return SamplerOutput(softmax_moments(logits, implementation="xla").top1)  # XLA drops all but the maximum


@dataclass(frozen=True)
class Sample(Sampler):
    """Draws from softmax(logits / temperature) after top-k, then top-p, then min-p filtering.

    Attributes:
      temperature: divisor of the logits, at least 0.001.
      top_k: number of most likely tokens to keep; 0 keeps all.
      top_p: probability to keep: the smallest set of most likely tokens that reaches it, from 1e-6 to 1.
      min_p: smallest probability to keep, as a fraction of the most likely token's, in [0, 1].

    Raises:
      ConfigError: a value is out of range.
    """

    temperature: float = DEFAULTS.temperature
    top_k: int = DEFAULTS.top_k
    top_p: float = DEFAULTS.top_p
    min_p: float = DEFAULTS.min_p

    def __post_init__(self) -> None:
        set_checked(self, SamplingSettings, "sampler 'sample'")

    def __call__(
        self,
        logits: Float[Array, "B V"],
        keys: Key[Array, " B"],
        metrics: StepTrace | None = None,
        state: Any = None,
    ) -> SamplerOutput:
        return SamplerOutput(jax.vmap(jax.random.categorical)(keys, self.processed(logits)).astype(jnp.int32))

    def processed(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """Return the scaled and filtered logits; removed tokens are at −1e30."""
        logits = jnp.where(logits <= MASKED, MASKED, logits / self.temperature)
        if 0 < self.top_k < logits.shape[-1]:
            logits = filter_top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = filter_top_p(logits, self.top_p)
        if self.min_p > 0:
            logits = filter_min_p(logits, self.min_p)
        return logits


def filter_top_k(logits: Float[Array, "B V"], top_k: Float[Array, " B"] | float) -> Float[Array, "B V"]:
    """Set all logits to −1e30 but the `top_k` largest ones and those equal to the last of these."""
    return _filter_by_weight(logits, jnp.ones_like(logits), top_k)


def filter_top_p(logits: Float[Array, "B V"], top_p: Float[Array, " B"] | float) -> Float[Array, "B V"]:
    """Set logits to −1e30 outside the smallest set of most likely tokens whose probability reaches `top_p`."""
    return _filter_by_weight(logits, jax.nn.softmax(logits, axis=-1), top_p)


def filter_min_p(logits: Float[Array, "B V"], min_p: Float[Array, " B"] | float) -> Float[Array, "B V"]:
    """Set logits to −1e30 for tokens less than `min_p` times as likely as the most likely one."""
    least = jnp.max(logits, axis=-1) + jnp.log(min_p)
    return jnp.where(logits < least[:, None], MASKED, logits)


def _filter_by_weight(
    logits: Float[Array, "B V"], weights: Float[Array, "B V"], limit: Float[Array, " B"] | float
) -> Float[Array, "B V"]:
    """Set logits to −1e30 where the weights of all larger logits sum to `limit` or more.

    The smallest kept logit is found by bisection over the bit patterns of floats, which sort like the floats. That
    needs only sums, so a vocabulary split over devices stays split; a sort would gather it.
    """
    bits = jax.lax.bitcast_convert_type(logits, jnp.int32)
    order = jnp.where(bits < 0, bits ^ MAGNITUDE, bits)

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)
        below = jnp.sum(jnp.where(order > middle[:, None], weights, 0), axis=-1) < limit
        return jnp.where(below, low, middle + 1), jnp.where(below, middle, high)

    ends = jnp.full(len(logits), -MAGNITUDE - 1, jnp.int32), jnp.full(len(logits), MAGNITUDE, jnp.int32)
    least, _ = jax.lax.fori_loop(0, 32, halved, ends)
    return jnp.where(order < least[:, None], MASKED, logits)
