"""The steps: pure functions (params, state, …) → (state, StepTrace), to be jitted, looped, vmapped, differentiated."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxtrace.engine.measure import StepTrace, forward_flags, measure
from jaxtrace.engine.samplers import Greedy, Sampler
from jaxtrace.engine.translators import Translators
from jaxtrace.errors import ConfigError
from jaxtrace.models.cache import KVCache, empty_cache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, is_stacked
from jaxtrace.models.forward import Forward, forward, look
from jaxtrace.models.images import Images
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.layers import Sight
from jaxtrace.settings.probes import Probes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where a batch of B rows stands between steps.

    Attributes:
      cache: keys and values of the positions fed so far.
      length: how many positions each row has fed.
      token: the token each row feeds next.
      hidden: residual stream of the last position fed, of the layers `probes.carried`; None where these are none.
      sight: the row's tiles, and those that the last token fed sees; None without images.
      key: random key of each row; a draw uses it folded with the position, so a row draws the same in any batch.
      active: rows that still draw. A row that does not is computed along, and does not move.
      remaining: how many tokens each row may still draw.
      repeats: how many times in a row `token` was drawn, itself included; 0 before the first draw.
      drawing: what the sampler keeps of each row, the rows first.
    """

    cache: KVCache
    length: Int[Array, " B"]
    token: Int[Array, " B"]
    hidden: Float[Array, "B L1 D"] | None
    sight: Sight | None
    key: Key[Array, " B"]
    active: Bool[Array, " B"]
    remaining: Int[Array, " B"]
    repeats: Int[Array, " B"]
    drawing: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StopRules:
    """When a row stops, beside running out of `remaining`.

    Attributes:
      tokens: ids that end a row; may be empty.
      repeats: this many identical tokens in a row end it; 0 never does.
    """

    tokens: Int[Array, " E"]
    repeats: Int[Array, ""]


def stop_rules(tokens: tuple[int, ...] = (), repeats: int = 0) -> StopRules:
    """StopRules of plain numbers."""
    return StopRules(jnp.array(tokens, jnp.int32).reshape(-1), jnp.asarray(repeats, jnp.int32))


def init_state(
    config: DecoderConfig,
    params: Params,
    batch: int,
    slots: int,
    probes: Probes,
    *,
    keys: Key[Array, " B"] | None = None,
    images: Images | None = None,
    sampler: Sampler = Greedy(),  # noqa: B008
) -> State:
    """An empty state: nothing fed, every row active, no limit on what it draws, images looked at.

    Args:
      config, params: of the decoder; the cache takes the parameters' dtype and layer layout.
      batch: rows (B).
      slots: positions the cache can hold (S).
      probes: those of the steps to come.
      keys: one per row; by default split from seed 0.
      images: of the rows; their keys and values are computed here, once.
      sampler: that of the steps to come.
    """
    dtype, carried = params["embedding"].dtype, probes.carried(config)
    zeros = lambda: jnp.zeros(batch, jnp.int32)  # noqa: E731 — buffers of their own, so that the state can be donated
    image_keys, sight = 0, None
    if images is not None:
        assert config.vision is not None
        image_keys, sight = images.keys(config.vision), Sight(images.own, jnp.zeros_like(images.own)[:, None])
    cache = empty_cache(config, batch, slots, stacked=is_stacked(params), dtype=dtype, image_keys=image_keys)
    if images is not None:
        some, see = jnp.any(images.aspect_ratio > 0), functools.partial(look, config, params, images=images)
        cache = jax.lax.cond(some, see, lambda cache: cache, cache)
    return State(
        cache=cache,
        length=zeros(),
        token=zeros(),
        hidden=jnp.zeros((batch, len(carried), config.embed), dtype) if carried else None,
        sight=sight,
        key=jax.random.split(jax.random.key(0), batch) if keys is None else keys,
        active=jnp.ones(batch, bool),
        remaining=jnp.full(batch, jnp.iinfo(jnp.int32).max),
        repeats=zeros(),
        drawing=sampler.init(batch, config.vocab),
    )


def prefill(
    params: Params,
    state: State,
    tokens: Int[Array, "B T"],
    count: Int[Array, " B"],
    visible: Bool[Array, "B T M"] | None = None,
    interventions: Interventions | None = None,
    *,
    config: DecoderConfig,
    probes: Probes,
) -> State:
    """Feeds T tokens of each row, of which the first `count` are its own, and measures nothing.

    `visible` says which tiles of its images each token sees, None without images; `interventions` what is left out of
    the forward pass.
    """
    sight = _sight(state, visible)
    carried = probes.carried(config)
    given = {"sight": sight, "interventions": interventions}
    result = forward(config, params, tokens, state.cache, state.length, stream=carried, **given)
    return _advanced(state, result, count, sight, carried)


def score_step(
    params: Params,
    state: State,
    tokens: Int[Array, "B T"],
    count: Int[Array, " B"],
    targets: Int[Array, "B T"],
    visible: Bool[Array, "B T M"] | None = None,
    interventions: Interventions | None = None,
    lens: Translators | None = None,
    *,
    config: DecoderConfig,
    probes: Probes,
) -> tuple[State, StepTrace]:
    """Feeds T tokens of each row, of which the first `count` are its own, and measures every position.

    `targets` are the tokens that come next, for `logprob`; −1 where none does. `visible` and `interventions` are those
    of `prefill`; `lens` translates the layers' residual streams for their lens metrics, None for the logit lens.
    Returns a StepTrace [B, T, …]; positions past `count` hold nothing of meaning.
    """
    sight = _sight(state, visible)
    given = {"sight": sight, "interventions": interventions, **forward_flags(config, probes)}
    result = forward(config, params, tokens, state.cache, state.length, **given)
    trace, _ = measure(config, params, result, state.hidden, state.length, probes, lens, targets=targets)
    state = _advanced(state, result, count, sight, probes.carried(config))
    return state, dataclasses.replace(trace, token=targets)


def decode_step(
    params: Params,
    state: State,
    stop: StopRules | None = None,
    interventions: Interventions | None = None,
    lens: Translators | None = None,
    *,
    config: DecoderConfig,
    probes: Probes,
    sampler: Sampler = Greedy(),  # noqa: B008
) -> tuple[State, StepTrace]:
    """Feeds each row's token, measures the distribution of the next one, and draws it.

    A row whose logits are NaN or infinite draws nothing (−1), has NaN for its metrics, and stops.
    With images, the token sees what `state.sight` says: by default the tiles that the token before it saw.

    Args:
      params: of the decoder.
      state: of the batch.
      stop: when rows stop; None for never.
      interventions: what is left out of the forward pass; None for nothing.
      lens: translates the layers' residual streams for their lens metrics; None for the logit lens.
      config, probes, sampler: static.

    Returns:
      The state after the draw, and a StepTrace [B, …] whose `token` is the token drawn.

    Raises:
      ConfigError: the state was begun for a sampler that keeps something else of its rows.
    """
    begun = jax.eval_shape(lambda: sampler.init(len(state.token), config.vocab))
    if _shapes(begun) != _shapes(state.drawing):
        raise ConfigError(
            f"the state was not begun for this {type(sampler).__name__}; give the sampler to init_state too"
        )
    greedy, needs = type(sampler) is Greedy, sampler.needs
    given = {"sight": state.sight, "interventions": interventions, **forward_flags(config, probes, needs)}
    result = forward(config, params, state.token[:, None], state.cache, state.length, **given)
    wanted = {"keep_logits": not greedy, "needs": needs}
    trace, drawable = measure(config, params, result, state.hidden, state.length, probes, lens, **wanted)
    trace, drawable = jax.tree.map(lambda x: x[:, 0], (trace, drawable))
    with jax.named_scope("sample"):
        drawn, below, drawing, quadrant = drawable.top1, 0.0, state.drawing, None
        if not greedy:
            logits = drawable.logits
            keys = jax.vmap(jax.random.fold_in)(state.key, state.length)
            draw = sampler(logits, keys, drawable.metrics, state.drawing)
            drawn, drawing, quadrant = draw.token, draw.state, draw.quadrant
            below = jnp.take_along_axis(logits, drawn[:, None], axis=-1)[:, 0] - jnp.max(logits, axis=-1)
        finite = drawable.finite
        drawn = jnp.where(finite, drawn, -1)
        quadrant = None if quadrant is None else jnp.where(finite, quadrant, -1)
    trace = dataclasses.replace(trace, token=drawn, quadrant=quadrant)
    if probes.output:
        trace = dataclasses.replace(trace, logprob=below + jnp.log(trace.top1_prob))
    repeats = jnp.where((drawn == state.token) & (state.repeats > 0), state.repeats + 1, 1)
    remaining = state.remaining - 1
    going = finite & (remaining > 0)
    if stop is not None:
        stopped = jnp.any(drawn[:, None] == stop.tokens, axis=-1)
        going &= ~(stopped | ((stop.repeats > 0) & (repeats >= stop.repeats)))
    active = state.active

    def of_active(new: Array, old: Array) -> Array:
        return jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    after = _advanced(state, result, active.astype(jnp.int32), state.sight, probes.carried(config))
    return dataclasses.replace(
        after,
        token=jnp.where(active & finite, drawn, state.token),
        active=active & going,
        remaining=of_active(remaining, state.remaining),
        repeats=of_active(repeats, state.repeats),
        drawing=jax.tree.map(of_active, drawing, state.drawing),
    ), trace


def _shapes(drawing: Any) -> tuple[Any, list[tuple[tuple[int, ...], Any]]]:
    """How what a sampler keeps is built, and the shape and dtype of each array in it."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda x: x, drawing))
    return structure, [(x.shape, x.dtype) for x in leaves]


def _sight(state: State, visible: Bool[Array, "B T M"] | None) -> Sight | None:
    """What the tokens of a call see."""
    return None if state.sight is None or visible is None else Sight(state.sight.own, visible)


def _advanced(
    state: State, result: Forward, count: Int[Array, " B"], sight: Sight | None, carried: tuple[int, ...]
) -> State:
    """The state after `count` positions of each row were fed, seeing `sight`; layers of its `hidden` are `carried`."""
    fed, last = (count > 0)[:, None, None], jnp.maximum(count - 1, 0)
    hidden = state.hidden
    if hidden is not None:
        latest = jnp.take_along_axis(result.residual(carried), last[None, :, None, None], axis=2)[:, :, 0].swapaxes(
            0, 1
        )
        hidden = jnp.where(fed, latest, hidden)
    if sight is not None:
        assert state.sight is not None
        latest = jnp.take_along_axis(sight.visible, last[:, None, None], axis=1)
        sight = Sight(sight.own, jnp.where(fed, latest, state.sight.visible))
    return dataclasses.replace(
        state, cache=result.cache, length=state.length + count, hidden=hidden, sight=sight or state.sight
    )
