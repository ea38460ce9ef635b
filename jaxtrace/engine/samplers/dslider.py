"""Entropix's Dirichlet sampler: draws bent towards a Dirichlet distribution fitted to the row's own past."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.samplers import dirichlet
from jaxtrace.engine.samplers.entropix import paused
from jaxtrace.engine.samplers.protocol import Drawn, Sampler
from jaxtrace.engine.samplers.quadrants import DSLIDER_REGIONS, RESAMPLING, measures_of, quadrant
from jaxtrace.engine.samplers.tempering import tuned_temperature
from jaxtrace.errors import ConfigError
from jaxtrace.kernels.moments import MASKED
from jaxtrace.models.on_mesh import largest_logits
from jaxtrace.settings.probes import Probes

FLOOR = math.log(1e-8)  # of log-probabilities that are kept
SMALL = 1e-8
PACE = 0.7  # of running means: so much of them is the step's own
CROSS_ENTROPY_PACE = (0.65, 0.65)  # bent, raw
CROSS_VARIANCE_PACE = (0.75, 0.65)
LEARNING = (4.0, 3.0)  # base and factor: the mean ln p moves by base^(−factor / KL)
BENDING = (10.0, 1.0)  # likewise, for how far p is bent
OUTLIER = {"pairs": 1.3, "entropy": 0.8, "deviation": 0.8, "own_entropy": 1.2, "own_varentropy": 1.2}
GREEDY = (0.1, 1.2)  # slope and offset: an inlier is not drawn but taken below it
LIKELY = (0.1, 1.2)  # likewise: an outlier follows the Dirichlet below it
TARGET = (1.0, 8.0)  # weights of the state's entropies, and of 1 / temperature, in the entropy to tune to
TOP = 6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DsliderState:
    """What is kept of each row, in nats; pairs are of the distribution drawn from and of the model's own.

    Attributes:
      begun: whether the row has drawn.
      paused: whether its last draw was the pause token.
      alpha: the Dirichlet.
      mean_logp: running mean, over outliers, of the tuned distribution's ln p on the support.
      temperature: likewise of its temperature.
      surprise: likewise of −ln of its density under the Dirichlet.
      entropy, varentropy: running means.
      cross_entropy, cross_variance: of −ln p[token].
      top_entropy: running mean of the entropy of the few likeliest tokens.
    """

    begun: Bool[Array, " B"]
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


@dataclasses.dataclass(frozen=True)
class Dslider(Sampler):
    """Entropix's last sampler (commit 0a7f7bb), its errors corrected.

    Where the step is an inlier of the row's past, the likeliest token is taken or the few likeliest are drawn from at a
    tuned temperature; an outlier is bent towards a Dirichlet fitted to the past. On top, treading puts the pause token,
    and resampling draws once more without the token drawn. A row starts from a flat Dirichlet and its first step's
    entropy, where the source starts from the prompt's positions.

    Attributes:
      support: ids of the Dirichlet's tokens, ascending; or how many, the first ones of the vocabulary, which in merged
        vocabularies are the frequent ones. Only how their mass is shared among them is bent.
      pause: id of the pause token, as `pause_token` finds it; None for none.
      wild: bend towards a draw from the Dirichlet; else towards its mean.
      outlier_bias: added to the score above which a step is an outlier. As published, 0, every step is one; the default
        makes one of steps less certain than 1.2 nats and 1.2 nats², its middling thresholds, in a like past.

    Raises:
      ConfigError: the support is no ascending choice of two tokens at least.
    """

    support: int | tuple[int, ...] = 4096
    pause: int | None = None
    wild: bool = True
    outlier_bias: float = -37.6

    def __post_init__(self):
        ids = (0, self.support - 1) if isinstance(self.support, int) else self.support
        if len(ids) < 2 or ids[0] < 0 or any(b <= a for a, b in itertools.pairwise(ids)):
            raise ConfigError("support: give two token ids at least, ascending, or how many of the first ones")

    @property
    def needs(self) -> Probes:
        return Probes.of("output", alphas=())

    @property
    def decides(self) -> bool:
        return True

    def init(self, batch: int, vocab: int) -> DsliderState:
        if self.pause is not None and not 0 <= self.pause < vocab:
            raise ConfigError(f"pause={self.pause} is no token of a vocabulary of {vocab}; give another, or None")
        if not isinstance(self.support, int) and self.support[-1] >= vocab:
            raise ConfigError(f"support: no token {self.support[-1]} in a vocabulary of {vocab}")
        size = min(self.support, vocab) if isinstance(self.support, int) else len(self.support)
        of_rows = lambda *shape: jnp.zeros((batch, *shape))  # noqa: E731
        return DsliderState(
            begun=jnp.zeros(batch, bool),
            paused=jnp.zeros(batch, bool),
            alpha=jnp.ones((batch, size)),
            mean_logp=dirichlet.expected_log(jnp.ones((batch, size))),
            temperature=jnp.ones(batch),
            surprise=jnp.full(batch, -math.lgamma(size)),
            entropy=of_rows(2),
            varentropy=of_rows(2),
            cross_entropy=of_rows(2),
            cross_variance=of_rows(2),
            top_entropy=of_rows(),
        )

    def __call__(self, logits: Float[Array, "B V"], keys: Key[Array, " B"], metrics: StepTrace, state: Any) -> Drawn:
        measures = measures_of(metrics, math.e)
        found = quadrant(DSLIDER_REGIONS, measures)

        def body(carry: tuple[Array, Array, DsliderState]) -> tuple[Array, Array, DsliderState]:
            """A draw; the second time of the rows that resample, without the token drawn first."""
            i, token, _ = carry
            barred = jnp.where((i > 0) & (jnp.arange(logits.shape[-1]) == token[:, None]), MASKED, logits)
            drawn, after = self._step(barred, jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i), state)
            mine = (i == 0) | (found == RESAMPLING)
            return i + 1, *_chosen(mine, (drawn, after), carry[1:])

        def going(carry: tuple[Array, Array, DsliderState]) -> Bool[Array, ""]:
            return (carry[0] == 0) | ((carry[0] == 1) & jnp.any(found == RESAMPLING))

        start = jnp.int32(0), jnp.zeros(len(logits), jnp.int32), state
        _, token, after = jax.lax.while_loop(going, body, start)
        token, pausing = paused(token, found, state.paused, self.pause)
        return Drawn(token, dataclasses.replace(after, paused=pausing), found)

    def _step(
        self, logits: Float[Array, "B V"], keys: Key[Array, " B"], state: DsliderState
    ) -> tuple[Int[Array, " B"], DsliderState]:
        """One draw of each row, and what it then keeps."""
        ids = jnp.arange(state.alpha.shape[1]) if isinstance(self.support, int) else jnp.array(self.support)
        for_inlier, for_dirichlet, for_outlier = jnp.moveaxis(jax.vmap(lambda k: jax.random.split(k, 3))(keys), 1, 0)
        logp = jax.nn.log_softmax(logits, axis=-1)
        top_logp, top_ids = (x[:, 0] for x in largest_logits(logp[:, None], min(TOP, logp.shape[-1])))
        entropy, varentropy = _moments(logp)
        top_entropy, _ = _moments(jax.nn.log_softmax(top_logp, axis=-1))
        state = _begun(state, entropy, varentropy, top_entropy)

        outlier = _outlier_score(state, entropy, varentropy) + self.outlier_bias > 0
        taken = top_entropy < GREEDY[0] * state.top_entropy + GREEDY[1]
        few = top_logp / tuned_temperature(top_logp, state.top_entropy)[:, None]
        inlier = jnp.where(taken, 0, jax.vmap(jax.random.categorical)(for_inlier, few))
        inlier = jnp.take_along_axis(top_ids, inlier[:, None], axis=-1)[:, 0]

        target = TARGET[0] * (state.entropy + state.cross_entropy).sum(-1) + TARGET[1] / state.temperature
        temperature = tuned_temperature(logp, target)
        whole = jax.nn.log_softmax(logits / temperature[:, None], axis=-1)
        mass = jax.nn.logsumexp(jnp.take(whole, ids, axis=-1), axis=-1, keepdims=True)
        tuned = jax.nn.log_softmax(jnp.maximum(jnp.take(whole, ids, axis=-1) - mass, FLOOR), axis=-1)
        pace = _slow(LEARNING, _divergence(tuned, state.mean_logp))[:, None]
        mean_logp = pace * tuned + (1 - pace) * state.mean_logp
        surprise = -dirichlet.log_likelihood(state.alpha, tuned)
        likely = surprise < LIKELY[0] * state.surprise + LIKELY[1]
        alpha = dirichlet.fit(mean_logp, state.alpha)
        if self.wild:
            other = dirichlet.draw_log(for_dirichlet, alpha)
        else:
            other = jnp.log(alpha / jnp.sum(alpha, axis=-1, keepdims=True))
        bent = 1 - _slow(BENDING, _divergence(other, tuned))[:, None]
        mixed = jnp.log(jnp.maximum(bent * jnp.exp(other) + (1 - bent) * jnp.exp(tuned), SMALL))
        there = jnp.take(logits, ids, axis=-1) > MASKED / 2
        shares = (jax.nn.log_softmax(jnp.where(there, of_support, MASKED), axis=-1) for of_support in (mixed, other))
        bent_logp, other_logp = (whole.at[:, ids].set(mass + share) for share in shares)
        drawn = jax.vmap(jax.random.categorical)(for_outlier, other_logp)
        token = jnp.where(outlier, jnp.where(likely, jnp.argmax(bent_logp, axis=-1), drawn), inlier).astype(jnp.int32)

        learned = dataclasses.replace(
            state,
            alpha=alpha,
            mean_logp=mean_logp,
            temperature=_moved(state.temperature, temperature),
            surprise=_moved(state.surprise, surprise),
        )
        state = _chosen(outlier, learned, state)
        drawn_from = jnp.where(outlier[:, None], bent_logp, logp)
        of_token = [jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0] for x in (drawn_from, logp)]
        surprisal = -jnp.maximum(jnp.stack(of_token, axis=-1), FLOOR)
        bent_entropy, bent_varentropy = _moments(drawn_from)
        cross_entropy = _moved(state.cross_entropy, surprisal, jnp.array(CROSS_ENTROPY_PACE))
        gap = jnp.square(cross_entropy - surprisal)
        return token, dataclasses.replace(
            state,
            entropy=_moved(state.entropy, jnp.stack([bent_entropy, entropy], axis=-1)),
            varentropy=_moved(state.varentropy, jnp.stack([bent_varentropy, varentropy], axis=-1)),
            cross_entropy=cross_entropy,
            cross_variance=_moved(state.cross_variance, gap, jnp.array(CROSS_VARIANCE_PACE)),
            top_entropy=_moved(state.top_entropy, top_entropy),
        )


def _begun(state: DsliderState, entropy: Array, varentropy: Array, top_entropy: Array) -> DsliderState:
    """The state of rows that draw for the first time: a past like this step."""
    pair = lambda x: jnp.stack([x, x], axis=-1)  # noqa: E731
    first = dataclasses.replace(
        state,
        begun=jnp.ones_like(state.begun),
        entropy=pair(entropy),
        cross_entropy=pair(entropy),
        varentropy=pair(varentropy),
        cross_variance=pair(varentropy),
        top_entropy=top_entropy,
    )
    return _chosen(~state.begun, first, state)


def _chosen(rows: Bool[Array, " B"], some: Any, others: Any) -> Any:
    def of_rows(x: Array, other: Array) -> Array:
        return jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, other)

    return jax.tree.map(of_rows, some, others)


def _moved(old: Array, new: Array, pace: Array | float = PACE) -> Array:
    return pace * new + (1 - pace) * old


def _slow(strength: tuple[float, float], divergence: Float[Array, " B"]) -> Float[Array, " B"]:
    """base^(−factor / divergence): 0 of what is alike, 1 of what has nothing in common."""
    base, factor = strength
    return base ** (-factor / (jnp.maximum(divergence, 0) + SMALL))


def _divergence(logp: Float[Array, "B K"], logq: Float[Array, "B K"]) -> Float[Array, " B"]:
    p = jnp.exp(logp)
    return jnp.sum(jnp.where(p > 0, p * (logp - jnp.maximum(logq, -1e4)), 0), axis=-1)


def _moments(logp: Float[Array, "B K"]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Entropy and varentropy of log-probabilities; what is not there counts nothing."""
    p = jnp.exp(logp)
    logp = jnp.where(p > 0, logp, 0)
    entropy = -jnp.sum(p * logp, axis=-1)
    return entropy, jnp.sum(p * jnp.square(logp + entropy[:, None]), axis=-1)


def _outlier_score(state: DsliderState, entropy: Float[Array, " B"], varentropy: Float[Array, " B"]) -> Array:
    past = jnp.concatenate([state.cross_entropy, state.entropy], axis=-1)
    deviations = jnp.sqrt(jnp.concatenate([state.cross_variance, state.varentropy], axis=-1))
    entropies, spreads = past.sum(-1), deviations.sum(-1)
    own = OUTLIER["own_entropy"] * entropy + OUTLIER["own_varentropy"] * varentropy
    return (
        OUTLIER["pairs"] * entropies * spreads + OUTLIER["entropy"] * entropies + OUTLIER["deviation"] * spreads + own
    )
