"""Entropix's Dirichlet sampler: bends draws towards a Dirichlet distribution fitted to the row's own past."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.rows import select_rows
from jaxtrace.engine.samplers import dirichlet
from jaxtrace.engine.samplers.entropix import check_pause, put_pauses
from jaxtrace.engine.samplers.protocol import Sampler, SamplerOutput
from jaxtrace.engine.samplers.quadrants import DSLIDER_REGIONS, RESAMPLING, choose_quadrant, measures_of
from jaxtrace.engine.samplers.tempering import entropy_moments, tuned_temperature
from jaxtrace.errors import ConfigError
from jaxtrace.kernels.moments import MASKED
from jaxtrace.models.on_mesh import largest_logits
from jaxtrace.prompts import token_ids
from jaxtrace.settings.numbers import Float32, Natural
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.validation import StrictModel, set_checked

FLOOR = math.log(1e-8)  # smallest log-probability that is kept
SMALL = 1e-8
PACE = 0.7  # weight of the newest step in a running mean
CROSS_ENTROPY_PACE = (0.65, 0.65)  # bent, raw
CROSS_VARIANCE_PACE = (0.75, 0.65)
LEARNING = (4.0, 3.0)  # base and factor: the mean ln p moves by base^(−factor / KL)
BENDING = (10.0, 1.0)  # base and factor of the share by which p is bent
OUTLIER = {"pairs": 1.3, "entropy": 0.8, "deviation": 0.8, "own_entropy": 1.2, "own_varentropy": 1.2}
GREEDY = (0.1, 1.2)  # slope and offset: below it an inlier takes the most likely token
LIKELY = (0.1, 1.2)  # slope and offset: below it an outlier follows the Dirichlet
TARGET = (1.0, 8.0)  # weights of the state's entropies and of 1 / temperature in the target entropy
MOST_TEMPERATURE = 2.0  # of an outlier, as in the previous sampler of Entropix (commit 9d41be6); see `target_entropy`
TOP = 6  # most likely tokens that an inlier draws from


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DsliderState:
    """State of each row, in nats. Pairs hold the distribution drawn from first and the model's own second.

    Attributes:
      started: True once the row has drawn a token.
      paused: True if the row's last draw was the pause token.
      alpha: concentrations of the Dirichlet.
      mean_logp: running mean, over outlier steps, of the tuned distribution's ln p on the support.
      temperature: running mean, over outlier steps, of the tuned temperature.
      surprise: running mean, over outlier steps, of the tuned distribution's −ln density under the Dirichlet.
      entropy: running means of the entropies.
      varentropy: running means of the varentropies.
      cross_entropy: running means of −ln p[token].
      cross_variance: running variances of −ln p[token].
      top_entropy: running mean of the entropy of the `TOP` most likely tokens.
    """

    started: Bool[Array, " B"]
    paused: Bool[Array, " B"]
    alpha: Float[Array, "B K"]
    mean_logp: Float[Array, "B K"]
    temperature: Float[Array, " B"]
    surprise: Float[Array, " B"]
    entropy: Float[Array, "B 2"]
    varentropy: Float[Array, "B 2"]
    cross_entropy: Float[Array, "B 2"]
    cross_variance: Float[Array, "B 2"]
    top_entropy: Float[Array, " B"]


class _Ranges(StrictModel):
    pause: Natural | None
    outlier_bias: Float32


@dataclasses.dataclass(frozen=True)
class Dslider(Sampler):
    """Entropix's last sampler (commit 0a7f7bb), with its errors corrected.

    An inlier of the row's past takes the most likely token, or draws from the few most likely ones at a tuned
    temperature. An outlier's distribution is bent towards a Dirichlet fitted to the past. In addition, treading puts
    the pause token, and resampling draws again without the first token. `target_entropy` caps what a tempered
    distribution has to reach, where the source writes noise. A row starts from a flat Dirichlet and its
    first step's entropy; the source starts from the prompt's positions.

    Attributes:
      support: ascending ids of the Dirichlet's tokens; or their number, for the first ones of the vocabulary, which in
        merged vocabularies are the frequent ones. Bending changes only how the support's mass is shared within it.
      pause: id of the pause token, from `pause_token`; None for none.
      wild: True bends towards a draw from the Dirichlet, False towards its mean.
      outlier_bias: term of the outlier score; a step with a positive score is an outlier. With the published 0 every
        step is one. The default puts a step of 1.2 nats and 1.2 nats² in a past of such steps on the edge: the middle
        thresholds of the regions.

    Raises:
      ConfigError: a value is out of range, or the support is not an ascending choice of at least two tokens.
    """

    support: int | tuple[int, ...] = 4096
    pause: int | None = None
    wild: bool = True
    outlier_bias: float = -37.6

    def __post_init__(self) -> None:
        set_checked(self, _Ranges, "sampler 'dslider'")
        try:
            ids = (0, self.support - 1) if isinstance(self.support, int) else token_ids(self.support)
        except ValueError:
            ids = ()
        if len(ids) < 2 or any(b <= a for a, b in itertools.pairwise(ids)):
            raise ConfigError(
                f"support={self.support} is out of range; give at least two token ids, ascending, or their number"
            )

    @property
    def needs(self) -> Probes:
        return Probes.of("output", alphas=())

    @property
    def decides(self) -> bool:
        return True

    def init(self, batch: int, vocab: int) -> DsliderState:
        check_pause(self.pause, vocab)
        if not isinstance(self.support, int) and self.support[-1] >= vocab:
            raise ConfigError(f"support: {self.support[-1]} is no token of a vocabulary of {vocab}; give smaller ids")
        size = min(self.support, vocab) if isinstance(self.support, int) else len(self.support)
        pair = jnp.zeros((batch, 2))
        return DsliderState(
            started=jnp.zeros(batch, bool),
            paused=jnp.zeros(batch, bool),
            alpha=jnp.ones((batch, size)),
            mean_logp=dirichlet.expected_log(jnp.ones((batch, size))),
            temperature=jnp.ones(batch),
            surprise=jnp.full(batch, -math.lgamma(size)),
            entropy=pair,
            varentropy=pair,
            cross_entropy=pair,
            cross_variance=pair,
            top_entropy=jnp.zeros(batch),
        )

    def __call__(
        self, logits: Float[Array, "B V"], keys: Key[Array, " B"], metrics: StepTrace, state: Any
    ) -> SamplerOutput:
        quadrant = choose_quadrant(DSLIDER_REGIONS, measures_of(metrics, math.e))

        def body(carry: tuple[Array, Array, DsliderState]) -> tuple[Array, Array, DsliderState]:
            """Draw for all rows; the second pass is for resampling rows and excludes the token of the first."""
            i, token, _ = carry
            allowed = jnp.where((i > 0) & (jnp.arange(logits.shape[-1]) == token[:, None]), MASKED, logits)
            drawn, next_state = self._step(allowed, jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i), state)
            updated = (i == 0) | (quadrant == RESAMPLING)
            return i + 1, *select_rows(updated, (drawn, next_state), carry[1:])

        def unfinished(carry: tuple[Array, Array, DsliderState]) -> Bool[Array, ""]:
            return (carry[0] == 0) | ((carry[0] == 1) & jnp.any(quadrant == RESAMPLING))

        start = jnp.int32(0), jnp.zeros(len(logits), jnp.int32), state
        _, token, next_state = jax.lax.while_loop(unfinished, body, start)
        token, paused = put_pauses(token, quadrant, state.paused, self.pause)
        return SamplerOutput(token, dataclasses.replace(next_state, paused=paused), quadrant)

    def _step(
        self, logits: Float[Array, "B V"], keys: Key[Array, " B"], state: DsliderState
    ) -> tuple[Int[Array, " B"], DsliderState]:
        """Return one draw of each row and its next state."""
        ids = jnp.arange(state.alpha.shape[1]) if isinstance(self.support, int) else jnp.array(self.support)
        for_inlier, for_dirichlet, for_outlier = jnp.moveaxis(jax.vmap(lambda k: jax.random.split(k, 3))(keys), 1, 0)
        logp = jax.nn.log_softmax(logits, axis=-1)
        top_logp, top_ids = (x[:, 0] for x in largest_logits(logp[:, None], min(TOP, logp.shape[-1])))
        entropy, varentropy = _moments(logp)
        top_entropy, _ = _moments(jax.nn.log_softmax(top_logp, axis=-1))
        state = _start(state, entropy, varentropy, top_entropy)

        outlier = _outlier_score(state, entropy, varentropy) + self.outlier_bias > 0
        greedy = top_entropy < GREEDY[0] * state.top_entropy + GREEDY[1]
        tempered = top_logp / tuned_temperature(top_logp, state.top_entropy)[:, None]
        inlier = jnp.where(greedy, 0, jax.vmap(jax.random.categorical)(for_inlier, tempered))
        inlier = jnp.take_along_axis(top_ids, inlier[:, None], axis=-1)[:, 0]

        temperature = tuned_temperature(logp, target_entropy(logits, state))
        whole = jax.nn.log_softmax(logits / temperature[:, None], axis=-1)
        mass = jax.nn.logsumexp(jnp.take(whole, ids, axis=-1), axis=-1, keepdims=True)
        tuned = jax.nn.log_softmax(jnp.maximum(jnp.take(whole, ids, axis=-1) - mass, FLOOR), axis=-1)
        pace = _share(LEARNING, _divergence(tuned, state.mean_logp))[:, None]
        mean_logp = pace * tuned + (1 - pace) * state.mean_logp
        surprise = -dirichlet.log_likelihood(state.alpha, tuned)
        likely = surprise < LIKELY[0] * state.surprise + LIKELY[1]
        alpha = dirichlet.fit(mean_logp, state.alpha)
        if self.wild:
            other = dirichlet.draw_log(for_dirichlet, alpha)
        else:
            other = jnp.log(alpha / jnp.sum(alpha, axis=-1, keepdims=True))
        bent = 1 - _share(BENDING, _divergence(other, tuned))[:, None]
        mixed = jnp.log(jnp.maximum(bent * jnp.exp(other) + (1 - bent) * jnp.exp(tuned), SMALL))
        present = jnp.take(logits, ids, axis=-1) > MASKED / 2
        shares = (jax.nn.log_softmax(jnp.where(present, x, MASKED), axis=-1) for x in (mixed, other))
        bent_logp, other_logp = (whole.at[:, ids].set(mass + share) for share in shares)
        drawn = jax.vmap(jax.random.categorical)(for_outlier, other_logp)
        token = jnp.where(outlier, jnp.where(likely, jnp.argmax(bent_logp, axis=-1), drawn), inlier).astype(jnp.int32)

        learned = dataclasses.replace(
            state,
            alpha=alpha,
            mean_logp=mean_logp,
            temperature=_running_mean(state.temperature, temperature),
            surprise=_running_mean(state.surprise, surprise),
        )
        state = select_rows(outlier, learned, state)
        drawn_from = jnp.where(outlier[:, None], bent_logp, logp)
        token_logp = [jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0] for x in (drawn_from, logp)]
        surprisal = -jnp.maximum(jnp.stack(token_logp, axis=-1), FLOOR)
        bent_entropy, bent_varentropy = _moments(drawn_from)
        cross_entropy = _running_mean(state.cross_entropy, surprisal, jnp.array(CROSS_ENTROPY_PACE))
        gap = jnp.square(cross_entropy - surprisal)
        return token, dataclasses.replace(
            state,
            entropy=_running_mean(state.entropy, jnp.stack([bent_entropy, entropy], axis=-1)),
            varentropy=_running_mean(state.varentropy, jnp.stack([bent_varentropy, varentropy], axis=-1)),
            cross_entropy=cross_entropy,
            cross_variance=_running_mean(state.cross_variance, gap, jnp.array(CROSS_VARIANCE_PACE)),
            top_entropy=_running_mean(state.top_entropy, top_entropy),
        )


def target_entropy(logits: Float[Array, "B V"], state: DsliderState) -> Float[Array, " B"]:
    """Return the entropy in nats that an outlier's distribution is tempered to.

    The published target adds four entropies and 8 / temperature, which exceeds ln V on real models. In the source ten
    steps of Halley's method then end at a temperature of up to 1.5^10, and the first token is noise; a NaN makes every
    later step an inlier. Here the target is at most the entropy of the model's own distribution at `MOST_TEMPERATURE`.
    """
    published = TARGET[0] * (state.entropy + state.cross_entropy).sum(-1) + TARGET[1] / state.temperature
    reachable, _, _ = entropy_moments(logits, jnp.full(len(logits), MOST_TEMPERATURE))
    return jnp.minimum(published, reachable)


def _start(state: DsliderState, entropy: Array, varentropy: Array, top_entropy: Array) -> DsliderState:
    """Give rows that draw for the first time a past that equals this step."""
    pair = lambda x: jnp.stack([x, x], axis=-1)  # noqa: E731
    first = dataclasses.replace(
        state,
        started=jnp.ones_like(state.started),
        entropy=pair(entropy),
        cross_entropy=pair(entropy),
        varentropy=pair(varentropy),
        cross_variance=pair(varentropy),
        top_entropy=top_entropy,
    )
    return select_rows(~state.started, first, state)


def _running_mean(old: Array, new: Array, pace: Array | float = PACE) -> Array:
    return pace * new + (1 - pace) * old


def _share(strength: tuple[float, float], divergence: Float[Array, " B"]) -> Float[Array, " B"]:
    """Return base^(−factor / divergence): 0 for equal distributions, 1 for disjoint ones."""
    base, factor = strength
    return base ** (-factor / (jnp.maximum(divergence, 0) + SMALL))


def _divergence(logp: Float[Array, "B K"], logq: Float[Array, "B K"]) -> Float[Array, " B"]:
    p = jnp.exp(logp)
    return jnp.sum(jnp.where(p > 0, p * (logp - jnp.maximum(logq, -1e4)), 0), axis=-1)


def _moments(logp: Float[Array, "B K"]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return entropy and varentropy of log-probabilities; absent entries count as 0."""
    p = jnp.exp(logp)
    logp = jnp.where(p > 0, logp, 0)
    entropy = -jnp.sum(p * logp, axis=-1)
    return entropy, jnp.sum(p * jnp.square(logp + entropy[:, None]), axis=-1)


def _outlier_score(
    state: DsliderState, entropy: Float[Array, " B"], varentropy: Float[Array, " B"]
) -> Float[Array, " B"]:
    """Return the score of a step; with `Dslider.outlier_bias` added, a positive score marks an outlier."""
    entropies = jnp.concatenate([state.cross_entropy, state.entropy], axis=-1).sum(-1)
    spreads = jnp.sqrt(jnp.concatenate([state.cross_variance, state.varentropy], axis=-1)).sum(-1)
    past = OUTLIER["pairs"] * entropies * spreads + OUTLIER["entropy"] * entropies + OUTLIER["deviation"] * spreads
    return past + OUTLIER["own_entropy"] * entropy + OUTLIER["own_varentropy"] * varentropy
