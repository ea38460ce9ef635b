"""Entropix: a sampler whose draw depends on the step's entropy and varentropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.samplers.draw import filter_min_p, filter_top_k, filter_top_p
from jaxtrace.engine.samplers.protocol import Sampler, SamplerOutput
from jaxtrace.engine.samplers.quadrants import (
    ADAPTIVE,
    CLASSIC,
    FLOWING,
    LEAST,
    TREADING,
    Thresholds,
    choose_quadrant,
    measures_of,
)
from jaxtrace.errors import ConfigError
from jaxtrace.settings.numbers import END_OF_INT32, Natural
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.validation import StrictModel, set_checked

LAST = END_OF_INT32 - 1  # a layer stride that selects the last layer alone


class _Ranges(StrictModel):
    pause: Natural | None
    layers: Literal["all", "last"]


@dataclass(frozen=True)
class Entropix(Sampler):
    """The rule of entropix (github.com/xjdr-alt/entropix) on correctly masked attention, with one random key per row.

    - flowing (low entropy, low varentropy): the most likely token;
    - treading (high, low): the pause token, unless the row just drew it; without a pause token, a draw;
    - exploring (low, high) and resampling (high, high): draws with their own settings;
    - adaptive (in between): the candidate that the model finds most likely among several draws. The source also weighs
      candidates by a confidence, but that is the same for all candidates, so its rule is this one.

    Attributes:
      thresholds: regions and draw settings, as data.
      pause: id of the pause token, from `pause_token`; None for none.
      layers: layers whose attention counts.

    Raises:
      ConfigError: a value is out of range.
    """

    thresholds: Thresholds = CLASSIC
    pause: int | None = None
    layers: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        set_checked(self, _Ranges, "sampler 'entropix'")
        if not isinstance(self.thresholds, Thresholds):
            raise ConfigError(f"thresholds is {self.thresholds!r:.60}; give jaxtrace's Thresholds")

    @property
    def needs(self) -> Probes:
        groups = ["output", "attention"] + ["dispersion"] * self.thresholds.uses("agreement")
        return Probes.of(*groups, alphas=(), layer_stride=1 if self.layers == "all" else LAST)

    @property
    def decides(self) -> bool:
        return True

    def init(self, batch: int, vocab: int) -> Bool[Array, " B"]:
        """Return False for each row: its last draw was not the pause token."""
        check_pause(self.pause, vocab)
        return jnp.zeros(batch, bool)

    def __call__(
        self, logits: Float[Array, "B V"], keys: Key[Array, " B"], metrics: StepTrace, state: Any
    ) -> SamplerOutput:
        measures = measures_of(metrics, self.thresholds.base)
        quadrant = choose_quadrant(self.thresholds.regions, measures)

        def setting(name: str) -> Float[Array, " B"]:
            """Return one setting of each row's draw; flowing rows draw nothing and get the setting of treading."""
            formulas = [getattr(draw, name) for draw in self.thresholds.draws]
            values = jnp.stack([formula(measures) for formula in formulas])
            chosen = jnp.take_along_axis(values, jnp.maximum(quadrant - TREADING, 0)[None], axis=0)[0]
            return jnp.maximum(chosen, LEAST[name])

        filtered = filter_min_p(logits / setting("temperature")[:, None], setting("min_p"))
        filtered = filter_top_p(filter_top_k(filtered, jnp.round(setting("top_k"))), setting("top_p"))
        draw_keys = jax.vmap(lambda key: jax.random.split(key, self.thresholds.candidates))(keys)
        candidates = jax.vmap(jax.vmap(jax.random.categorical, in_axes=(0, None)))(draw_keys, filtered)
        candidates = candidates.astype(jnp.int32)
        best = jnp.argmax(jnp.take_along_axis(logits, candidates, axis=-1), axis=-1)
        choice = jnp.where(quadrant == ADAPTIVE, best, 0)
        token = jnp.take_along_axis(candidates, choice[:, None], axis=-1)[:, 0]
        token = jnp.where(quadrant == FLOWING, jnp.argmax(logits, axis=-1).astype(jnp.int32), token)
        return SamplerOutput(*put_pauses(token, quadrant, state, self.pause), quadrant)


def check_pause(pause: int | None, vocab: int) -> None:
    """Raise ConfigError if the pause token is not in the vocabulary."""
    if pause is not None and not 0 <= pause < vocab:
        raise ConfigError(f"pause={pause} is no token of a vocabulary of {vocab}; give another, or None")


def put_pauses(
    token: Int[Array, " B"], quadrant: Int[Array, " B"], paused: Bool[Array, " B"], pause: int | None
) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """Replace tokens of treading rows by the pause token, unless the row's last draw was one.

    Returns:
      (tokens, True for each row whose token is now the pause token).
    """
    if pause is None:
        return token, paused
    token = jnp.where((quadrant == TREADING) & ~paused, jnp.int32(pause), token)
    return token, token == pause
