"""Entropix: a draw that depends on where the step's entropy and varentropy lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.samplers.compat import Published, published
from jaxtrace.engine.samplers.draw import likely, most_likely, nucleus
from jaxtrace.engine.samplers.protocol import Drawn, Sampler
from jaxtrace.engine.samplers.quadrants import (
    ADAPTIVE,
    CLASSIC,
    FLOWING,
    TREADING,
    Thresholds,
    measures_of,
    quadrant,
)
from jaxtrace.errors import ConfigError
from jaxtrace.settings.probes import Probes

LAST = 2**31  # a stride that leaves the last layer alone


@dataclass(frozen=True)
class Entropix(Sampler):
    """The rule of entropix (github.com/xjdr-alt/entropix) on correctly masked attention, with keys of each row.

    - flowing (little entropy, little varentropy): the most likely token;
    - treading (much, little): the pause token, unless it was the row's last draw; without one, a draw;
    - exploring (little, much) and resampling (much, much): draws with settings of their own;
    - adaptive (in between): of some candidates drawn, the one that the model finds likeliest. The source weighs
      candidates by a confidence as well, which is the same for all: its rule is this one.

    Attributes:
      thresholds: regions and settings as data.
      pause: id of the token that stands for a thought, as `pause_token` finds it; None for none.
      layers: whose attention counts.
      compat: "e55e9a3" is that commit as published, errors included, on recorded scores: see `on_scores`.
    """

    thresholds: Thresholds = CLASSIC
    pause: int | None = None
    layers: Literal["all", "last"] = "all"
    compat: Literal["e55e9a3"] | None = None

    @property
    def needs(self) -> Probes:
        groups = ["output", "attention"] + ["dispersion"] * self.thresholds.uses("agreement")
        return Probes.of(*groups, alphas=(), layer_stride=1 if self.layers == "all" else LAST)

    @property
    def decides(self) -> bool:
        return True

    def init(self, batch: int, vocab: int) -> Bool[Array, " B"]:
        """Whether each row's last draw was the pause token."""
        if self.pause is not None and not 0 <= self.pause < vocab:
            raise ConfigError(f"pause={self.pause} is no token of a vocabulary of {vocab}; give another, or None")
        return jnp.zeros(batch, bool)

    def __call__(self, logits: Float[Array, "B V"], keys: Key[Array, " B"], metrics: StepTrace, state: Any) -> Drawn:
        if self.compat is not None:
            raise ConfigError(
                f"compat {self.compat!r} needs attention scores from before the mask, which the step does not keep: "
                "record them and call on_scores, or leave compat out"
            )
        measures = measures_of(metrics, self.thresholds.base)
        found = quadrant(self.thresholds.regions, measures)

        def setting(name: str) -> Float[Array, " B"]:
            """Of each row; flowing, which draws nothing, has those of treading."""
            formulas = [getattr(draw, name) for draw in self.thresholds.draws]
            values = jnp.stack([formula(measures) for formula in formulas])
            return jnp.take_along_axis(values, jnp.maximum(found - TREADING, 0)[None], axis=0)[0]

        cut = likely(logits / setting("temperature")[:, None], setting("min_p"))
        cut = nucleus(most_likely(cut, jnp.round(setting("top_k"))), setting("top_p"))
        several = jax.vmap(lambda key: jax.random.split(key, self.thresholds.candidates))(keys)
        candidates = jax.vmap(jax.vmap(jax.random.categorical, in_axes=(0, None)))(several, cut).astype(jnp.int32)
        best = jnp.argmax(jnp.take_along_axis(logits, candidates, axis=-1), axis=-1)
        place = jnp.where(found == ADAPTIVE, best, 0)
        token = jnp.take_along_axis(candidates, place[:, None], axis=-1)[:, 0]
        token = jnp.where(found == FLOWING, jnp.argmax(logits, axis=-1).astype(jnp.int32), token)
        return Drawn(*paused(token, found, state, self.pause), found)

    def on_scores(
        self, logits: Float[np.ndarray, " V"], scores: Float[np.ndarray, "N Q K"], previous: int
    ) -> Published:
        """The draw of a single row as commit e55e9a3 makes it.

        Args:
          logits: of the row.
          scores: of the last layer, scaled, before mask and softmax, with the slots that nothing was written to.
          previous: the token that the row drew last.

        Raises:
          ConfigError: the sampler is no "e55e9a3".
        """
        if self.compat is None:
            raise ConfigError("on_scores is of the published commit alone; set compat='e55e9a3'")
        return published(logits, scores, previous)


def paused(token: Array, found: Array, state: Bool[Array, " B"], pause: int | None) -> tuple[Array, Bool[Array, " B"]]:
    """The tokens with pauses put where rows tread and did not just pause, and whether each now is one."""
    if pause is None:
        return token, state
    token = jnp.where((found == TREADING) & ~state, jnp.int32(pause), token)
    return token, token == pause
