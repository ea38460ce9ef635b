"""The steps: pure functions (params, state, …) → (state, StepTrace) for jit, scan, vmap and grad."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxtrace.engine.measure import StepTrace, forward_flags, measure
from jaxtrace.engine.rows import select_rows
from jaxtrace.engine.samplers import Greedy, Sampler
from jaxtrace.engine.settings import EngineRanges
from jaxtrace.engine.stop_strings import StopStrings
from jaxtrace.engine.translators import Translators
from jaxtrace.errors import ConfigError
from jaxtrace.models.attention import ImageMask
from jaxtrace.models.cache import KVCache, empty_cache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, is_stacked
from jaxtrace.models.forward import ForwardResult, encode_images, forward
from jaxtrace.models.images import Images
from jaxtrace.models.interventions import Interventions
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.validation import validated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """State of a batch of B rows between two steps.

    Attributes:
      cache: keys and values of the positions fed so far, and the state of recurrent layers after them.
      length: number of positions that each row has fed.
      token: token that each row feeds next.
      hidden: residual stream of the last fed position, one row per layer in `probes.carried`; None if it is empty.
      image_mask: image tiles that each row has, and the ones that its last fed token sees; None without images.
      key: random key of each row. A draw folds the position into it, so a row draws the same tokens in any batch.
      active: True for rows that still draw. Finished rows are still computed, but their state is frozen.
      remaining: number of tokens that each row may still draw.
      repeats: number of times in a row that `token` was drawn; 0 before the first draw.
      stop_state: state of the automaton of the stop strings; 0 without them.
      sampler_state: state of the sampler, with the rows first.
      prompt_length: number of tokens of each row's prompt, whose weight is `attention_prompt_mass`; None if every fed
        token belongs to the prompt.
      first: position of each row's step 0, for `probes.lens_every`; None for position 0, and where the lens is taken at
        every step.
      text_length: number of tokens that are known from the start, of the prompt or of a text to score, for a rope that
        depends on the row's length; None for other ropes. It makes a text that is fed in pieces equal one that is fed
        at once.
    """

    cache: KVCache
    length: Int[Array, " B"]
    token: Int[Array, " B"]
    hidden: Float[Array, "B L1 D"] | None
    image_mask: ImageMask | None
    key: Key[Array, " B"]
    active: Bool[Array, " B"]
    remaining: Int[Array, " B"]
    repeats: Int[Array, " B"]
    stop_state: Int[Array, " B"]
    sampler_state: Any
    prompt_length: Int[Array, " B"] | None
    first: Int[Array, " B"] | None
    text_length: Int[Array, " B"] | None

    @property
    def step(self) -> Int[Array, " B"]:
        """Number of the step that each row makes next; negative in a prompt."""
        return self.length if self.first is None else self.length - self.first


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StopRules:
    """Conditions that end a row before `remaining` does.

    Attributes:
      tokens: ids that end a row; may be empty.
      repeats: number of identical tokens in a row that end it; 0 disables the rule.
      strings: automaton of the stop strings; None for none.
    """

    tokens: Int[Array, " E"]
    repeats: Int[Array, ""]
    strings: StopStrings | None = None


def stop_rules(tokens: tuple[int, ...] = (), repeats: int = 0, strings: StopStrings | None = None) -> StopRules:
    """Return StopRules from plain numbers; raise ConfigError if one is out of range."""
    checked = validated(EngineRanges, {"stop_tokens": tokens, "stop_repeats": repeats}, "stop_rules")
    return StopRules(
        jnp.array(checked.stop_tokens, jnp.int32).reshape(-1),
        jnp.asarray(checked.stop_repeats, jnp.int32),
        jax.tree.map(jnp.asarray, strings),
    )


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
    prompt_length: Int[Array, " B"] | None = None,
    first: Int[Array, " B"] | None = None,
    text_length: Int[Array, " B"] | None = None,
    chunk: int | None = None,
) -> State:
    """Return an empty state: nothing fed, every row active without a limit, images encoded.

    Args:
      config: config of the decoder.
      params: parameters of the decoder; the cache takes their dtype and layer layout.
      batch: number of rows (B).
      slots: number of positions that the cache can hold (S).
      probes: probes of the steps that will use the state.
      keys: random key of each row; None splits the key of seed 0.
      images: images of the rows; their keys and values are computed here, once.
      sampler: sampler of the steps that will use the state.
      prompt_length: number of tokens of each row's prompt, the last one included, for `attention_prompt_mass`; None if
        every token counts as the prompt's.
      first: position of each row's step 0, from which `probes.lens_every` counts; None for position 0.
      text_length: number of tokens of each row's prompt, the last one included, or of its text to score. A rope that
        depends on the row's length uses it from the first call on. None if each text is fed in one call.
      chunk: largest number of tokens of a row that one call feeds. Layers with windows then hold only the positions
        that their queries need; None holds all positions, as `attention_rows` needs them.

    Raises:
      ConfigError: the sampler reads the attention of layers none of which has attention weights.
    """
    check_attention(config, sampler.needs)
    dtype, carried = params["embedding"].dtype, probes.carried(config)
    zeros = lambda: jnp.zeros(batch, jnp.int32)  # noqa: E731 — one buffer per field, so that the state can be donated
    image_keys, image_mask = 0, None
    if images is not None:
        assert config.vision is not None
        image_keys, image_mask = (
            images.keys(config.vision),
            ImageMask(images.row_tiles, jnp.zeros_like(images.row_tiles)[:, None]),
        )
    sizes = {"batch": batch, "slots": slots, "image_keys": image_keys, "chunk": chunk}
    cache = empty_cache(config, stacked=is_stacked(params), dtype=dtype, **sizes)
    if images is not None:
        encode = functools.partial(encode_images, config, params, images=images)
        cache = jax.lax.cond(jnp.any(images.aspect_ratio > 0), encode, lambda cache: cache, cache)
    return State(
        cache=cache,
        length=zeros(),
        token=zeros(),
        hidden=jnp.zeros((batch, len(carried), config.embed_dim), dtype) if carried else None,
        image_mask=image_mask,
        key=jax.random.split(jax.random.key(0), batch) if keys is None else keys,
        active=jnp.ones(batch, bool),
        remaining=jnp.full(batch, jnp.iinfo(jnp.int32).max),
        repeats=zeros(),
        stop_state=zeros(),
        sampler_state=sampler.init(batch, config.vocab_size),
        prompt_length=prompt_length,
        first=(zeros() if first is None else first) if probes.lens_every > 1 else None,
        text_length=(zeros() if text_length is None else text_length) if config.rope_by_length else None,
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
    """Feed up to T tokens of each row without measuring them.

    Args:
      params: parameters of the decoder.
      state: state of the batch.
      tokens: tokens of each row, padded on the right.
      count: number of tokens of each row before the padding.
      visible: True for each image tile that a token sees; None without images.
      interventions: blocks and heads to ablate; None for none.
      config: config of the decoder; static.
      probes: probes of the steps that will use the state; static.
    """
    image_mask = _image_mask(state, visible)
    carried = probes.carried(config)
    options = _of_piece(state, count, image_mask, interventions)
    result = forward(config, params, tokens, state.cache, state.length, stream=carried, **options)
    return _advance(state, result, count, image_mask, carried)


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
    """Feed up to T tokens of each row and measure every position.

    Args:
      params: parameters of the decoder.
      state: state of the batch.
      tokens: tokens of each row, padded on the right.
      count: number of tokens of each row before the padding.
      targets: next token after each position, for `logprob`; −1 if there is none.
      visible: True for each image tile that a token sees; None without images.
      interventions: blocks and heads to ablate; None for none.
      lens: translators of the residual streams for the lens metrics; None for the logit lens.
      config: config of the decoder; static.
      probes: metrics to compute; static.

    Returns:
      The state after the tokens, and a StepTrace [B, T, …]. Its values at padded positions are undefined.
    """
    image_mask = _image_mask(state, visible)
    options = _of_piece(state, count, image_mask, interventions) | forward_flags(config, probes)
    result = forward(config, params, tokens, state.cache, state.length, **options)
    inputs = result, state.hidden, state.length
    trace, _ = measure(config, params, *inputs, probes, lens, count=count, step=state.step, targets=targets)
    state = _advance(state, result, count, image_mask, probes.carried(config))
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
    """Feed each row's token, measure the distribution of the next token, and draw it.

    A row whose logits are NaN or infinite draws −1, has NaN metrics, and stops. With images, the token sees the tiles
    in `state.image_mask`: by default the same ones as the token before it.

    Args:
      params: parameters of the decoder.
      state: state of the batch.
      stop: conditions that end a row; None for none.
      interventions: blocks and heads to ablate; None for none.
      lens: translators of the residual streams for the lens metrics; None for the logit lens.
      config: config of the decoder; static.
      probes: metrics to compute; static.
      sampler: sampler of the next token; static.

    Returns:
      The state after the draw, and a StepTrace [B, …] whose `token` is the drawn token.

    Raises:
      ConfigError: the state was initialised for a sampler with another kind of state.
    """
    expected = jax.eval_shape(lambda: sampler.init(len(state.token), config.vocab_size))
    if _shapes(expected) != _shapes(state.sampler_state):
        raise ConfigError(
            f"the state was not initialised for this {type(sampler).__name__}; pass the sampler to init_state too"
        )
    greedy, needs = type(sampler) is Greedy, sampler.needs
    count = state.active.astype(jnp.int32)
    options = _of_piece(state, count, state.image_mask, interventions) | forward_flags(config, probes, needs)
    result = forward(config, params, state.token[:, None], state.cache, state.length, **options)
    trace, inputs = measure(
        config,
        params,
        result,
        state.hidden,
        state.length,
        probes,
        lens,
        count=count,
        step=state.step,
        keep_logits=not greedy,
        needs=needs,
    )
    trace, inputs = jax.tree.map(lambda x: x[:, 0], (trace, inputs))
    with jax.named_scope("sample"):
        drawn, below_max, sampler_state, quadrant = inputs.top1, 0.0, state.sampler_state, None
        if not greedy:
            logits = inputs.logits
            keys = jax.vmap(jax.random.fold_in)(state.key, state.length)
            output = sampler(logits, keys, inputs.metrics, state.sampler_state)
            drawn, sampler_state, quadrant = output.token, output.state, output.quadrant
            below_max = jnp.take_along_axis(logits, drawn[:, None], axis=-1)[:, 0] - jnp.max(logits, axis=-1)
        finite = inputs.finite
        drawn = jnp.where(finite, drawn, -1)
        quadrant = None if quadrant is None else jnp.where(finite, quadrant, -1)
    trace = dataclasses.replace(trace, token=drawn, quadrant=quadrant)
    if probes.output:
        trace = dataclasses.replace(trace, logprob=below_max + jnp.log(trace.top1_prob))
    repeats = jnp.where((drawn == state.token) & (state.repeats > 0), state.repeats + 1, 1)
    remaining, stop_state = state.remaining - 1, state.stop_state
    unfinished = finite & (remaining > 0)
    if stop is not None:
        stopped = jnp.any(drawn[:, None] == stop.tokens, axis=-1)
        unfinished &= ~(stopped | ((stop.repeats > 0) & (repeats >= stop.repeats)))
        if (strings := stop.strings) is not None:
            stop_state = strings.following[stop_state, strings.classes[drawn]]
            unfinished &= stop_state < len(strings.following) - 1
    active = state.active
    fed = _advance(state, result, count, state.image_mask, probes.carried(config))
    return dataclasses.replace(
        fed,
        token=jnp.where(active & finite, drawn, state.token),
        active=active & unfinished,
        remaining=jnp.where(active, remaining, state.remaining),
        repeats=jnp.where(active, repeats, state.repeats),
        stop_state=jnp.where(active, stop_state, state.stop_state),
        sampler_state=select_rows(active, sampler_state, state.sampler_state),
    ), trace


def check_attention(config: DecoderConfig, needs: Probes) -> None:
    """Raise ConfigError if a sampler reads the attention of layers none of which has attention weights."""
    layers = needs.layers(config)
    if needs.attention and all(config.kind(layer - 1).delta_net for layer in layers):
        where = "the model" if len(layers) > 1 else f"layer {max(layers)}"
        raise ConfigError(f"sampler: reads attention weights, and {where} has none; use another sampler")


def _shapes(tree: Any) -> tuple[Any, list[tuple[tuple[int, ...], Any]]]:
    """Return the structure of a pytree, and the shape and dtype of each of its arrays."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda x: x, tree))
    return structure, [(x.shape, x.dtype) for x in leaves]


def _of_piece(
    state: State, count: Int[Array, " B"], image_mask: ImageMask | None, interventions: Interventions | None
) -> dict[str, Any]:
    """Return the options of `forward` for a piece of a text: `count` tokens of each row before the padding."""
    length = None if state.text_length is None else jnp.maximum(state.text_length, state.length + count)
    options = {"length": length, "count": count, "prompt_length": state.prompt_length}
    return options | {"image_mask": image_mask, "interventions": interventions}


def _image_mask(state: State, visible: Bool[Array, "B T M"] | None) -> ImageMask | None:
    """Return the image mask of the tokens of a call; None without images."""
    return None if state.image_mask is None or visible is None else ImageMask(state.image_mask.row_tiles, visible)


def _advance(
    state: State, result: ForwardResult, count: Int[Array, " B"], image_mask: ImageMask | None, carried: tuple[int, ...]
) -> State:
    """Return the state after the first `count` positions of each row were fed with `image_mask`.

    `carried` lists the layers in the state's `hidden`.
    """
    fed, last = (count > 0)[:, None, None], jnp.maximum(count - 1, 0)
    hidden = state.hidden
    if hidden is not None:
        latest = jnp.take_along_axis(result.residual(carried), last[None, :, None, None], axis=2)[:, :, 0].swapaxes(
            0, 1
        )
        hidden = jnp.where(fed, latest, hidden)
    if image_mask is not None:
        assert state.image_mask is not None
        latest = jnp.take_along_axis(image_mask.visible, last[:, None, None], axis=1)
        image_mask = ImageMask(image_mask.row_tiles, jnp.where(fed, latest, state.image_mask.visible))
    return dataclasses.replace(
        state, cache=result.cache, length=state.length + count, hidden=hidden, image_mask=image_mask or state.image_mask
    )
