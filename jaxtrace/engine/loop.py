"""Running prompts through the steps: rows refilled as they finish, and metrics drained while the device works."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxtrace.engine.buckets import best_width, chunk
from jaxtrace.engine.gather import Gathered, Metrics, OnProgress
from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.pool import Entry, Look, Pool, score
from jaxtrace.engine.samplers import Sampler
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.step import State, StopRules, decode_step, stop_rules
from jaxtrace.engine.translators import Translators
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.interventions import Interventions
from jaxtrace.settings.probes import Probes

FOREVER = np.int32(np.iinfo(np.int32).max)
REFILL = 1  # what a refill costs, in decode steps


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
    """Up to `steps` decode steps; ends early when no row is active, or rows that are not have cost too much.

    Args:
      params, state, stop, interventions, lens, config, probes, sampler: as `decode_step` takes them.
      patience: row-steps that rows which are not active may be computed along.
      steps: most steps.

    Returns:
      (state, traces [steps, B, …], which rows were active at each step, which are active now, patience left).
    """
    changes = {"interventions": interventions, "lens": lens}
    step = functools.partial(decode_step, params, stop=stop, config=config, probes=probes, sampler=sampler, **changes)
    one = jax.eval_shape(step, state)[1]
    traces = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), one)
    valid = jnp.zeros((steps, *state.active.shape), bool)

    def going(carry):
        i, state, patience, *_ = carry
        return (i < steps) & jnp.any(state.active) & (patience > 0)

    def body(carry):
        i, state, patience, traces, valid = carry
        patience -= jnp.sum(~state.active, dtype=jnp.int32)
        valid = valid.at[i].set(state.active)
        state, trace = step(state)
        traces = jax.tree.map(lambda xs, x: xs.at[i].set(x), traces, trace)
        return i + 1, state, patience, traces, valid

    start = (0, state, jnp.asarray(patience), traces, valid)
    _, state, patience, traces, valid = jax.lax.while_loop(going, body, start)
    active = jnp.copy(state.active)  # a buffer of its own: the state's is donated to the next call
    return state, traces, valid, active, patience


def generate_rows(
    config: DecoderConfig,
    params: Params,
    prompts: Sequence[Int[np.ndarray, " P"]],
    settings: Settings,
    on_progress: OnProgress = lambda *_: None,
    numbers: Sequence[int] | None = None,
    look: Look | None = None,
    lens: Translators | None = None,
) -> Iterator[list[tuple[int, Metrics]]]:
    """Metrics of every step of every prompt's continuation, with its index, in order, as soon as they are there.

    Of several processes each gives out the prompts of its own rows. `numbers`, by default the indices, seed the draws;
    `lens` is that of the lens metrics, None for the logit lens.

    A prompt but for its last token is prefilled; every step, the first included, is then the one decode step. While a
    chunk of steps runs, the metrics of the chunk before it are drained to the host. A chunk ends when rows that are
    done have idled for what a refill costs; waiting prompts then take their places.
    """
    entries = [
        Entry(
            tokens,
            fed=len(tokens) - 1,
            positions=min(len(tokens) + settings.max_new_tokens, config.context),
            draws=min(settings.max_new_tokens, config.context + 1 - len(tokens)),
        )
        for tokens in prompts
    ]
    pool = Pool(config, params, settings, entries, numbers, look, lens)
    stop = stop_rules(settings.stop_tokens, settings.stop_repeats)
    options = {"sampler": settings.sampler, "steps": settings.steps}
    gathered = Gathered(on_progress, pool.own)

    def run(patience: Any) -> Any:
        with pool.on_mesh():
            pool.state, *out = decode_chunk(
                params, pool.state, stop, patience, *pool.changes, config=config, probes=settings.probes, **options
            )
        return list(pool.holders), *out

    def refilled() -> Any:
        pool.admit()
        for group, trace, count in pool.measured:
            gathered.begin(pool.everyone(trace), group, count)
        pool.measured.clear()
        patience = REFILL * len(pool.holders) if pool.waiting else FOREVER
        return run(pool.everywhere(np.int32(patience))) if pool.busy else None

    running = refilled()
    while running:
        holders, trace, *small = running
        following = run(small[-1])  # returns at once where a refill is due
        valid, active, patience = pool.everyone(small)
        if patience <= 0 or not active.any():
            pool.release(~active)
            following = None  # lets go of its traces
            following = refilled()
        counts = valid.sum(axis=0)
        steps = {row: (slice(count), row) for row, count in enumerate(counts) if count}
        yield from gathered.add(pool.fetched(trace, rows=1), holders, steps, done=~active)
        running = following


def score_rows(
    config: DecoderConfig,
    params: Params,
    texts: Sequence[Int[np.ndarray, " P"]],
    settings: Settings,
    on_progress: OnProgress = lambda *_: None,
    look: Look | None = None,
    lens: Translators | None = None,
) -> Iterator[list[tuple[int, Metrics]]]:
    """Metrics of every position of given texts, with the text's index, in order, as soon as they are there.

    Of several processes each gives out the texts of its own rows.

    Texts are fed in chunks of positions, each row at its own place in its text; where a text is done, the next one
    begins. The metrics of a chunk are drained while the next one runs.
    """
    entries = [Entry(tokens, fed=0, positions=len(tokens), draws=0) for tokens in texts]
    targets = [np.append(tokens[1:], np.int32(-1)) for tokens in texts]
    pool = Pool(config, params, settings, entries, look=look, lens=lens)
    gathered = Gathered(on_progress, pool.own)
    at = np.zeros(len(pool.holders), int)  # each row's place in its text
    pool.admit()
    running = None
    while pool.busy or running:
        following = None
        if pool.busy:
            holders = list(pool.holders)
            left = np.array([0 if text is None else len(texts[text]) for text in holders]) - at
            width = best_width(left, pool.slots - at.max())
            places = [slice(start, start + width) for start in at]
            tokens, count = chunk(_cut(texts, holders, places), width)
            ahead, _ = chunk(_cut(targets, holders, places), width)
            visible = chunk(_cut(pool.visible, holders, places), width)[0] if pool.visible else None
            with pool.on_mesh():
                pool.state, trace = score(
                    params,
                    pool.state,
                    tokens,
                    count,
                    ahead,
                    visible,
                    *pool.changes,
                    config=config,
                    probes=settings.probes,
                )
            done = left <= width
            following = holders, trace, count, done
            at = np.where(done, 0, at + count)
            pool.release(done)
            pool.admit()
        if running:
            holders, trace, counts, done = running
            steps = {row: (row, slice(count)) for row, count in enumerate(counts) if count}
            yield from gathered.add(pool.fetched(trace, rows=0), holders, steps, done)
        running = following


def _cut(rows: Any, holders: list[int | None], places: list[slice]) -> list[np.ndarray]:
    """The part of each row's prompt that stands at its place; nothing for an idle row."""
    some = next(rows[holder] for holder in holders if holder is not None)
    return [some[:0] if holder is None else rows[holder][at] for holder, at in zip(holders, places, strict=True)]
