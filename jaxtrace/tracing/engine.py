"""Running prompts through the steps: batches, buckets of length, chunks of steps, and metrics drained on the way."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Int

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.images import Images
from jaxtrace.models.layers import Sight
from jaxtrace.parallel.sharding import state_shardings
from jaxtrace.tracing.measure import StepTrace
from jaxtrace.tracing.probes import Probes
from jaxtrace.tracing.samplers import Sampler
from jaxtrace.tracing.step import State, StopRules, decode_step, init_state, prefill, score_step, stop_rules

CHUNK_WIDTHS = (16, 32, 64, 128, 256)  # positions fed at once
SCORE_ENTRIES = 1 << 26  # attention scores of one layer of one chunk: 256 MiB in float32


@dataclasses.dataclass(frozen=True)
class Looked:
    """The images of a batch.

    Attributes:
      images: of its rows.
      visible: for each row, which tiles each of its tokens sees.
    """

    images: Images
    visible: list[Bool[np.ndarray, "P M"]]


Look = Callable[[int, int], Looked | None]  # first prompt, batch size: the batch's images, or None where it has none
Metrics = dict[str, np.ndarray]  # of one row: name → [steps, …]
OnProgress = Callable[[int, int, float], None]  # new prompts, new tokens, sum of their entropies

STATIC = ("config", "probes")
_prefill = jax.jit(prefill, static_argnames=STATIC, donate_argnames="state")
_score = jax.jit(score_step, static_argnames=STATIC, donate_argnames="state")


@functools.partial(jax.jit, static_argnames=(*STATIC, "batch", "slots", "mesh"))
def _init(params: Params, *, mesh: Mesh | None, **options: Any) -> State:
    """`init_state`, on a mesh with every part made where it will be used."""
    state = init_state(params=params, **options)
    return state if mesh is None else jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))


def _mesh_of(params: Params) -> Mesh | None:
    where = params["embedding"].sharding
    return cast(Mesh, where.mesh) if isinstance(where, NamedSharding) else None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How rows are run.

    Attributes:
      probes: what to measure.
      batch_size: rows run at once.
      max_new_tokens: most tokens a row draws (generate).
      sampler: how it draws them.
      stop_tokens: ids that end a row.
      stop_repeats: this many identical tokens in a row end it; 0 never does.
      seed: of the rows' random keys; a row's key is folded with its index, whatever its batch.
      steps: decode steps per call of the device.
    """

    probes: Probes
    batch_size: int = 16
    max_new_tokens: int = 64
    sampler: Sampler | None = None
    stop_tokens: tuple[int, ...] = ()
    stop_repeats: int = 0
    seed: int = 0
    steps: int = 16


@functools.partial(jax.jit, static_argnames=(*STATIC, "sampler", "steps"), donate_argnames="state")
def decode_chunk(
    params: Params,
    state: State,
    stop: StopRules,
    *,
    config: DecoderConfig,
    probes: Probes,
    sampler: Sampler,
    steps: int,
) -> tuple[State, StepTrace, Bool[Array, "n B"], Bool[Array, " B"]]:
    """Up to `steps` decode steps; ends early when no row is active.

    Returns:
      (state, traces [steps, B, …], which rows were active at each step, which are active now).
    """
    step = functools.partial(decode_step, params, stop=stop, config=config, probes=probes, sampler=sampler)
    one = jax.eval_shape(step, state)[1]
    traces = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), one)
    valid = jnp.zeros((steps, *state.active.shape), bool)

    def going(carry):
        i, state, *_ = carry
        return (i < steps) & jnp.any(state.active)

    def body(carry):
        i, state, traces, valid = carry
        valid = valid.at[i].set(state.active)
        state, trace = step(state)
        traces = jax.tree.map(lambda xs, x: xs.at[i].set(x), traces, trace)
        return i + 1, state, traces, valid

    _, state, traces, valid = jax.lax.while_loop(going, body, (0, state, traces, valid))
    return state, traces, valid, jnp.copy(state.active)  # a buffer of its own: the state's is donated to the next call


def generate_rows(
    config: DecoderConfig,
    params: Params,
    prompts: Sequence[Int[np.ndarray, " P"]],
    settings: Settings,
    on_progress: OnProgress = lambda *_: None,
    first_index: int = 0,
    look: Look = lambda *_: None,
) -> Iterator[list[Metrics]]:
    """Metrics of every step of every prompt's continuation, one list of rows per batch, in order.

    The prompt but for its last token is prefilled; every step, the first included, is then the one decode step. While a
    chunk of steps runs, the metrics of the chunk before it are drained to the host.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(settings.seed)))
    stop = stop_rules(settings.stop_tokens, settings.stop_repeats)
    static, mesh = {"config": config, "probes": settings.probes}, _mesh_of(params)
    for at, batch, rows in _batches(prompts, settings.batch_size):
        size = len(batch)
        lengths = np.array([len(tokens) for tokens in batch])
        widths = _chunk_widths(lengths.max() - 1, CHUNK_WIDTHS[-1])
        slots = _slots(max(sum(widths), min(lengths.max() + settings.max_new_tokens, config.context)))
        indices = first_index + at + jnp.arange(size)
        looked = look(at, size)
        images = looked and looked.images
        state = _init(params, batch=size, slots=slots, keys=keys(indices), images=images, mesh=mesh, **static)
        pieces = _chunks([tokens[:-1] for tokens in batch], widths)
        for (tokens, count), visible in zip(pieces, _visible(looked, widths), strict=True):
            state = _prefill(params, state, tokens, count, visible, **static)
        if looked:
            last = jnp.array([visible[len(tokens) - 1] for visible, tokens in zip(looked.visible, batch, strict=True)])
            state = dataclasses.replace(state, sight=Sight(state.sight.own, last[:, None]))
        budget = np.minimum(settings.max_new_tokens, config.context + 1 - lengths)
        state = dataclasses.replace(
            state,
            token=jnp.array([tokens[-1] for tokens in batch], jnp.int32),
            remaining=jnp.asarray(budget, jnp.int32),
            active=jnp.arange(size) < rows,
        )
        run = functools.partial(decode_chunk, sampler=settings.sampler, steps=settings.steps, **static)
        parts, valids = [], []
        state, *running = run(params, state, stop)
        while True:
            state, *following = run(params, state, stop)  # returns at once if no row is active any more
            trace, valid, active = jax.device_get(running)
            parts.append(trace)
            valids.append(valid)
            _report(on_progress, trace, valid)
            if not active.any():
                break
            running = following
        yield _rows(parts, np.concatenate(valids).T, axis=0)[:rows]
        on_progress(rows, 0, 0.0)


def score_rows(
    config: DecoderConfig,
    params: Params,
    texts: Sequence[Int[np.ndarray, " P"]],
    settings: Settings,
    on_progress: OnProgress = lambda *_: None,
    look: Look = lambda *_: None,
) -> Iterator[list[Metrics]]:
    """Metrics of every position of given texts, one list of rows per batch, in order.

    Texts are fed in chunks of positions, so that no more than one chunk's attention weights and one block's logits
    exist at a time; the metrics of a chunk are drained while the next one runs.
    """
    static, mesh = {"config": config, "probes": settings.probes}, _mesh_of(params)
    for at, batch, rows in _batches(texts, settings.batch_size):
        size = len(batch)
        longest = max(len(tokens) for tokens in batch)
        widths = _chunk_widths(longest, _widest_score(config, size, longest))
        slots = _slots(sum(widths))
        looked = look(at, size)
        state = _init(params, batch=size, slots=slots, images=looked and looked.images, mesh=mesh, **static)
        parts, valids, running = [], [], None
        targets = [np.append(tokens[1:], -1) for tokens in batch]
        pieces = zip(_chunks(batch, widths), _chunks(targets, widths), _visible(looked, widths), strict=True)
        for (tokens, count), (following, _), visible in pieces:
            state, trace = _score(params, state, tokens, count, following, visible, **static)
            valids.append((np.arange(tokens.shape[1]) < count[:, None]) & (np.arange(size) < rows)[:, None])
            if running is not None:
                parts.append(jax.device_get(running))
                _report(on_progress, parts[-1], valids[-2])
            running = trace
        parts.append(jax.device_get(running))
        _report(on_progress, parts[-1], valids[-1])
        yield _rows(parts, np.concatenate(valids, axis=1), axis=1)[:rows]
        on_progress(rows, 0, 0.0)


def _batches(
    prompts: Sequence[Int[np.ndarray, " P"]], batch_size: int
) -> Iterator[tuple[int, list[Int[np.ndarray, " P"]], int]]:
    """(index of the first, batch, how many of it are prompts); the last batch is filled up to the others' size."""
    size = min(batch_size, len(prompts))
    for at in range(0, len(prompts), size or 1):
        batch = list(prompts[at : at + size])
        yield at, batch + [np.zeros(1, np.int32)] * (size - len(batch)), len(batch)


def _rows(parts: list[StepTrace], valid: Bool[np.ndarray, "B n"], axis: int) -> list[Metrics]:
    """Joins traces along their step axis and cuts out what each row reached."""
    joined = jax.tree.map(lambda *xs: np.concatenate(xs, axis=axis), *parts)
    metrics = {name: x for name, x in vars(joined).items() if x is not None}
    by_row = {name: x.swapaxes(0, 1) if axis == 0 else x for name, x in metrics.items()}
    return [{name: x[b, reached] for name, x in by_row.items()} for b, reached in enumerate(valid)]


def _report(on_progress: OnProgress, trace: StepTrace, valid: Bool[np.ndarray, ...]) -> None:
    entropy = float(np.sum(trace.entropy[valid])) if trace.entropy is not None else float("nan")
    on_progress(0, int(valid.sum()), entropy)


def _chunk_widths(positions: int, widest: int) -> list[int]:
    """Widths of the chunks that cover so many positions: the widest ones, then the narrowest that holds the rest."""
    full, rest = divmod(int(positions), widest)
    tail = [min(width for width in CHUNK_WIDTHS if width >= rest)] if rest else []
    return [widest] * full + tail


def _chunks(
    rows: Sequence[Int[np.ndarray, " P *m"]], widths: list[int]
) -> Iterator[tuple[Int[np.ndarray, "B T *m"], Int[np.ndarray, " B"]]]:
    """Right-padded chunks of positions, and how many of them are each row's own."""
    at = 0
    for width in widths:
        cut = [row[at : at + width] for row in rows]
        yield (
            np.stack([np.pad(row, [(0, width - len(row)), *[(0, 0)] * (row.ndim - 1)]) for row in cut]),
            np.array([len(row) for row in cut], np.int32),
        )
        at += width


def _visible(looked: Looked | None, widths: list[int]) -> Iterable[Bool[np.ndarray, "B T M"] | None]:
    """Chunks of what the tokens of a batch see."""
    return [None] * len(widths) if looked is None else (visible for visible, _ in _chunks(looked.visible, widths))


def _slots(positions: int) -> int:
    """Cache slots for so many positions: few sizes, so that few programs are compiled."""
    step = 64 if positions <= 512 else 512
    return -(-positions // step) * step


def _widest_score(config: DecoderConfig, batch: int, longest: int) -> int:
    """The widest chunk whose attention scores stay within SCORE_ENTRIES."""
    per_position = batch * config.heads * _slots(longest)
    fitting = [width for width in CHUNK_WIDTHS if width * per_position <= SCORE_ENTRIES]
    return max(fitting, default=CHUNK_WIDTHS[0])
