"""Loops that run prompts through the steps: finished rows are refilled, and metrics drain while the device works."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxtrace import interrupts
from jaxtrace.engine.buckets import best_width, chunk, fixed_width
from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.memory import running_rows
from jaxtrace.engine.metric_buffer import MetricBuffer, Metrics, OnProgress
from jaxtrace.engine.pool import ImageLoader, Pool, PoolEntry, score_chunk
from jaxtrace.engine.samplers import Sampler
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.step import State, StopRules, decode_step, stop_rules
from jaxtrace.engine.stop_strings import StopStrings
from jaxtrace.engine.translators import Translators
from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.interventions import Interventions
from jaxtrace.settings.probes import Probes

FOREVER = np.int32(np.iinfo(np.int32).max)
REFILL = 1  # cost of a refill, in decode steps
BLOCK = 16  # rows that each device decodes at once in a deterministic run

Carry = tuple[Array, State, Array, StepTrace, Array]  # step, state, patience left, traces, active rows at each step


@functools.partial(jax.jit, static_argnames=("config", "probes", "sampler", "steps"), donate_argnames="state")
def decode_chunk(
    params: Params,
    state: State,
    stop: StopRules,
    patience: Int[Array, ""] | np.int32 = FOREVER,
    interventions: Interventions | None = None,
    lens: Translators | None = None,
    *,
    config: DecoderConfig,
    probes: Probes,
    sampler: Sampler,
    steps: int,
) -> tuple[State, StepTrace, Bool[Array, "n B"], Bool[Array, " B"], Int[Array, ""]]:
    """Run up to `steps` decode steps; end early if no row is active or finished rows have used up the patience.

    With `probes.lens_every`, patience ends a call only before a step with a lens. All rows of a pool then take the lens
    at the same steps, since they start together, or when a call ends.

    Args:
      params: see `decode_step`, like state, stop, interventions, lens, config, probes and sampler.
      patience: number of row-steps that may be spent on finished rows.
      steps: largest number of steps.

    Returns:
      (state, traces [steps, B, …], active rows at each step, active rows now, patience left).
    """
    options = {"interventions": interventions, "lens": lens}
    step = functools.partial(decode_step, params, stop=stop, config=config, probes=probes, sampler=sampler, **options)
    step = jax.jit(step, inline=True)  # traced once, for its shapes and for the loop
    shapes = jax.eval_shape(step, state)[1]
    traces = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), shapes)
    valid = jnp.zeros((steps, *state.active.shape), bool)

    def may_end(state: State) -> Bool[Array, ""]:
        return jnp.all(~state.active | (state.step % probes.lens_every == 0))

    def unfinished(carry: Carry) -> Bool[Array, ""]:
        i, state, patience, *_ = carry
        impatient = patience <= 0
        if probes.lens_every > 1:
            impatient &= may_end(state)
        return (i < steps) & jnp.any(state.active) & ~impatient

    def body(carry: Carry) -> Carry:
        i, state, patience, traces, valid = carry
        patience -= jnp.sum(~state.active, dtype=jnp.int32)
        valid = valid.at[i].set(state.active)
        state, trace = step(state)
        traces = jax.tree.map(lambda xs, x: xs.at[i].set(x), traces, trace)
        return i + 1, state, patience, traces, valid

    start = (jnp.int32(0), state, jnp.asarray(patience), traces, valid)
    _, state, patience, traces, valid = jax.lax.while_loop(unfinished, body, start)
    if probes.lens_every > 1:  # a caller refills the rows once no patience is left
        patience = jnp.where(may_end(state), patience, jnp.maximum(patience, 1))
    active = jnp.copy(state.active)  # a separate buffer: the next call donates the state's
    return state, traces, valid, active, patience


def generate_rows(
    config: DecoderConfig,
    params: Params,
    prompts: Sequence[Int[np.ndarray, " P"]],
    settings: Settings,
    on_progress: OnProgress = lambda *_: None,
    numbers: Sequence[int] | None = None,
    load_images: ImageLoader | None = None,
    lens: Translators | None = None,
    strings: StopStrings | None = None,
) -> Iterator[list[tuple[int, Metrics]]]:
    """Continue prompts and yield the metrics of every step, in the order of the prompts, as soon as they are complete.

    All tokens of a prompt but the last are prefilled; every step, the first one included, is then the same decode step.
    While a chunk of steps runs, the metrics of the previous chunk drain to the host. A chunk ends when finished rows
    have idled for the cost of a refill; waiting prompts then take their rows.

    In a deterministic run every prompt goes through the same programs, whatever it runs with: `BLOCK` rows decode at
    once, each is prefilled on its own, and prompts of another cache size wait until those of this size have finished.
    The order of the prompts then holds within each size.

    Args:
      config: config of the decoder.
      params: parameters of the decoder.
      prompts: token ids of each prompt.
      settings: settings of the run.
      on_progress: callback with (new prompts, new tokens, sum of their entropies).
      numbers: numbers that seed the prompts' draws; None for their indices.
      load_images: loads a prompt's images by its index; None if no prompt has images.
      lens: translators for the lens metrics; None for the logit lens.
      strings: automaton of the stop strings of the settings; None for none.

    Yields:
      Lists of (index of the prompt, its metrics). Each of several processes yields the prompts of its own rows.
    """
    entries = _generated_entries(config, prompts, settings)
    most = BLOCK if settings.deterministic else settings.batch_size
    with running_rows(config, params, entries, most, settings):
        for members, pool in _pools(config, params, settings, entries, BLOCK, numbers, load_images, lens):
            for batch in _generate(pool, settings, strings, on_progress):
                yield [(members[i], metrics) for i, metrics in batch]


def _generated_entries(
    config: DecoderConfig, prompts: Sequence[Int[np.ndarray, " P"]], settings: Settings
) -> list[PoolEntry]:
    return [
        PoolEntry(
            tokens,
            prefill=len(tokens) - 1,
            positions=min(len(tokens) + settings.max_new_tokens, config.context),
            draws=min(settings.max_new_tokens, config.context + 1 - len(tokens)),
            prompt=len(tokens),
        )
        for tokens in prompts
    ]


def compile_generation(
    config: DecoderConfig,
    params: Params,
    prompts: Sequence[Int[np.ndarray, " P"]],
    settings: Settings,
    strings: StopStrings | None,
) -> None:
    """Start to compile what `generate_rows` runs first, from the shapes of the parameters, for prompts without images.

    A later `generate_rows` with these arguments waits for the programs and uses them.
    """
    entries = _generated_entries(config, prompts, settings)
    for _, pool in itertools.islice(_pools(config, params, settings, entries, BLOCK, None, None, None), 1):
        _compile_ahead(pool, _stop_rules(pool, settings, strings), settings)


def _stop_rules(pool: Pool, settings: Settings, strings: StopStrings | None) -> StopRules:
    return jax.tree.map(pool.replicate, stop_rules(settings.stop_tokens, settings.stop_repeats, strings))


def _compile_ahead(pool: Pool, stop: StopRules, settings: Settings) -> None:
    static = {"sampler": settings.sampler, "steps": settings.steps}
    pool.compile_ahead(decode_chunk, stop, pool.replicate(FOREVER), *pool.interventions_and_lens, **static)


def _generate(
    pool: Pool, settings: Settings, strings: StopStrings | None, on_progress: OnProgress
) -> Iterator[list[tuple[int, Metrics]]]:
    """Run a pool's prompts; see `generate_rows`."""
    stop = _stop_rules(pool, settings, strings)
    static = {"sampler": settings.sampler, "steps": settings.steps}
    buffer = MetricBuffer(on_progress, pool.local_rows)
    _compile_ahead(pool, stop, settings)

    def run(patience: Any) -> Any:
        pool.state, *results = pool.call(
            decode_chunk, pool.state, stop, patience, *pool.interventions_and_lens, **static
        )
        return list(pool.row_prompts), *results

    def refill_and_run() -> Any:
        pool.admit()
        for group, trace, count in pool.prompt_traces:
            buffer.add_prompts(pool.gather_to_host(trace), group, count)
        pool.prompt_traces.clear()
        patience = REFILL * len(pool.row_prompts) if pool.waiting else FOREVER
        return run(pool.replicate(np.int32(patience))) if pool.busy else None

    running = refill_and_run()
    while running:
        row_prompts, trace, *flags = running
        following = run(flags[-1])  # returns at once if a refill is due
        valid, active, patience = pool.gather_to_host(flags)
        if patience <= 0 or not active.any():
            pool.release(~active)
            following = None  # frees its traces before the refill
            if interrupts.requested() is None:
                following = refill_and_run()
        counts = valid.sum(axis=0)
        slices = {row: (slice(count), row) for row, count in enumerate(counts) if count}
        yield from buffer.add_steps(pool.local_to_host(trace, rows=1), row_prompts, slices, finished=~active)
        yield from buffer.end_if_interrupted()
        running = following


def score_rows(
    config: DecoderConfig,
    params: Params,
    texts: Sequence[Int[np.ndarray, " P"]],
    settings: Settings,
    on_progress: OnProgress = lambda *_: None,
    load_images: ImageLoader | None = None,
    lens: Translators | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> Iterator[list[tuple[int, Metrics]]]:
    """Score texts and yield the metrics of every position, in the order of the texts, as soon as they are complete.

    Texts are fed in chunks of positions, each row at its own position in its text; where a text ends, the next one
    starts. The metrics of a chunk drain while the next one runs. Arguments and yielded values match `generate_rows`. A
    deterministic run scores one text at a time on each device. `prompt_lengths` are the numbers of tokens at the start
    of the texts whose weight is `attention_prompt_mass`; None for all tokens.
    """
    prompt_lengths = [len(tokens) for tokens in texts] if prompt_lengths is None else prompt_lengths
    entries = [
        PoolEntry(tokens, prefill=0, positions=len(tokens), draws=0, prompt=prompt)
        for tokens, prompt in zip(texts, prompt_lengths, strict=True)
    ]
    most = 1 if settings.deterministic else settings.batch_size
    with running_rows(config, params, entries, most, settings):
        for members, pool in _pools(config, params, settings, entries, 1, None, load_images, lens):
            for batch in _score(config, params, pool, settings, on_progress, [texts[i] for i in members]):
                yield [(members[i], metrics) for i, metrics in batch]


def _score(
    config: DecoderConfig,
    params: Params,
    pool: Pool,
    settings: Settings,
    on_progress: OnProgress,
    texts: Sequence[Int[np.ndarray, " P"]],
) -> Iterator[list[tuple[int, Metrics]]]:
    """Run a pool's texts; see `score_rows`."""
    targets = [np.append(tokens[1:], np.int32(-1)) for tokens in texts]
    static = {"config": config, "probes": settings.probes}
    buffer = MetricBuffer(on_progress, pool.local_rows)
    position = np.zeros(len(pool.row_prompts), int)  # next position of each row in its text
    pool.admit()
    running = None
    while pool.busy or running:
        following = None
        if pool.busy:
            row_texts = list(pool.row_prompts)
            remaining = np.array([0 if text is None else len(texts[text]) for text in row_texts]) - position
            room = pool.slots - position.max()
            width = fixed_width(pool.slots) if settings.deterministic else best_width(remaining, room)
            spans = [slice(start, start + width) for start in position]
            tokens, count = chunk(_spans(texts, row_texts, spans), width)
            next_tokens, _ = chunk(_spans(targets, row_texts, spans), width)
            visible = chunk(_spans(pool.visible, row_texts, spans), width)[0] if pool.visible else None
            with pool.on_mesh():
                pool.state, trace = score_chunk(
                    params, pool.state, tokens, count, next_tokens, visible, *pool.interventions_and_lens, **static
                )
            finished = remaining <= width
            following = row_texts, trace, count, finished
            position = np.where(finished, 0, position + count)
            pool.release(finished)
            pool.admit()
        if running:
            row_texts, trace, counts, finished = running
            slices = {row: (row, slice(count)) for row, count in enumerate(counts) if count}
            yield from buffer.add_steps(pool.local_to_host(trace, rows=0), row_texts, slices, finished)
            yield from buffer.end_if_interrupted()
        running = following


def _pools(
    config: DecoderConfig,
    params: Params,
    settings: Settings,
    entries: Sequence[PoolEntry],
    block: int,
    numbers: Sequence[int] | None,
    load_images: ImageLoader | None,
    lens: Translators | None,
) -> Iterator[tuple[list[int], Pool]]:
    """Yield the pools of a run, each with the indices of its prompts.

    A deterministic run has a pool of `block` rows for each cache size, another run has one pool.

    Raises:
      ConfigError: the run is deterministic and has images, whose number in one prompt changes the cache of others.
    """
    if settings.deterministic and load_images is not None:
        raise ConfigError("deterministic: is on, and prompts have images, which it does not cover; drop one of the two")
    numbers = range(len(entries)) if numbers is None else numbers
    sizes = [entry.slots(config.context) if settings.deterministic else 0 for entry in entries]
    options = {"load_images": load_images, "lens": lens, "block": block if settings.deterministic else None}
    for size in sorted(set(sizes)):
        members = [i for i, other in enumerate(sizes) if other == size]
        of_members = [entries[i] for i in members], [numbers[i] for i in members]
        yield members, Pool(config, params, settings, *of_members, **options)


def _spans(arrays: Any, row_texts: list[int | None], spans: list[slice]) -> list[np.ndarray]:
    """Return the span of each row's text in its array; an empty one for an idle row."""
    empty = next(arrays[text] for text in row_texts if text is not None)[:0]
    return [empty if text is None else arrays[text][span] for text, span in zip(row_texts, spans, strict=True)]
