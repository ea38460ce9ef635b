"""A pool of rows that run together: prompts are prefilled in groups, and replace rows that have finished."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from jaxtrace.compilation import compile_in_thread
from jaxtrace.engine.buckets import cache_chunk, cache_slots, chunk_widths, chunks
from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.slots import idle_rows, init_rows, insert_rows, resize_cache
from jaxtrace.engine.step import State, prefill, score_step
from jaxtrace.engine.translators import Translators
from jaxtrace.kernels import at_precision
from jaxtrace.models.attention import ImageMask
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.images import Images
from jaxtrace.models.interventions import Interventions
from jaxtrace.parallel.processes import gather_to_host, local_rows, local_to_host

GROUPS = 4  # a full pool is prefilled in this many groups: few programs, and little padding of short prompts
TOO_LARGE = 4  # a cache this many times larger than its rows need is cut to their size
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class PoolEntry:
    """A prompt that waits for a row.

    Attributes:
      tokens: token ids of the prompt.
      prefill: number of tokens to feed before the row joins the pool.
      positions: largest number of positions that the row may feed in all.
      draws: largest number of tokens that the row may draw.
      prompt: number of tokens at the start whose weight is `attention_prompt_mass`.
    """

    tokens: Int[np.ndarray, " P"]
    prefill: int
    positions: int
    draws: int
    prompt: int

    def slots(self, context: int) -> int:
        """Return the number of cache slots that the prompt needs."""
        return cache_slots(max(self.positions, sum(chunk_widths(self.prefill))), context)


@dataclasses.dataclass(frozen=True)
class PromptImages:
    """Images of a prompt.

    Attributes:
      images: `Images` without the axis of rows.
      visible: True for each image tile that a token sees.
    """

    images: Images
    visible: Bool[np.ndarray, "P M"]


ImageLoader = Callable[[int], PromptImages]  # index of a prompt → its images, padded with empty ones to one number


class Pool:
    """B rows that run together, each idle or with a prompt. A mesh raises B until it splits the rows evenly.

    The cache has a slot for each position that the rows need, rounded up to a few sizes. It grows when a prompt needs
    more.

    Attributes:
      state: state of the rows.
      slots: number of cache slots.
      row_prompts: prompt of each row, None for an idle row.
      visible: image tiles that the tokens of each running prompt see, by prompt; empty without images.
      local_rows: True for the rows whose traces this process reads.
      prompt_traces: traces of the prompt positions that were prefilled with probes, since the caller last cleared the
        list: ((row, prompt) pairs, traces [A, T, …], number of each row's positions before the padding).
      interventions_and_lens: interventions and translators for every step, on the devices of the parameters.
    """

    state: State

    def __init__(
        self,
        config: DecoderConfig,
        params: Params,
        settings: Settings,
        entries: Sequence[PoolEntry],
        numbers: Sequence[int] | None = None,
        load_images: ImageLoader | None = None,
        lens: Translators | None = None,
        block: int | None = None,
    ) -> None:
        """Create a pool of idle rows.

        Args:
          config: config of the decoder.
          params: parameters of the decoder.
          settings: settings of the run.
          entries: prompts to run.
          numbers: numbers that seed the prompts' draws; None for their indices.
          load_images: loads a prompt's images; called a few prompts ahead. None if no prompt has images.
          lens: translators for the lens metrics, on the devices of the parameters; None for the logit lens.
          block: number of rows of each device, for a deterministic run; None for `batch_size` rows in all.
        """
        embedding = params["embedding"]
        sharding = embedding.sharding if getattr(embedding, "committed", True) else None  # a shape's may be None
        self._config, self._params, self._probes, self._entries = config, params, settings.probes, entries
        self._sampler, self._precision = settings.sampler, settings.matmul_precision
        self._mesh = cast(Mesh, sharding.mesh) if isinstance(sharding, NamedSharding) else None
        kept = cache_chunk(settings.probes, deterministic=block is not None)
        self._cache: Any = {"chunk": kept, "mesh": self._mesh}
        parts = 1 if self._mesh is None else self._mesh.shape.get("data", 1)
        size = round_up(min(settings.batch_size, len(entries)), parts) if block is None else block * parts
        self._sharding = sharding
        self._key = jax.random.wrap_key_data(self.replicate(jax.random.key_data(jax.random.key(settings.seed))))
        interventions = jax.tree.map(self.replicate, settings.interventions)
        self.interventions_and_lens: tuple[Interventions | None, Translators | None] = (interventions, lens)
        self._numbers = range(len(entries)) if numbers is None else numbers
        self._deterministic = block is not None
        self._group = parts if self._deterministic else group_size(size, parts)
        self._waiting = deque(range(len(entries)))
        self._images = load_images and _prefetch(load_images, len(entries), self._group)
        self.slots = 0
        self.row_prompts: list[int | None] = [None] * size
        self.visible: dict[int, Bool[np.ndarray, "P M"]] = {}
        self.local_rows = local_rows(self._mesh, size)
        self.prompt_traces: list[tuple[list[tuple[int, int]], StepTrace, Int[np.ndarray, " A"]]] = []
        self._static = {"config": config, "probes": settings.probes}
        self._compiling: list[tuple[Any, Future[None]]] = []

    @property
    def waiting(self) -> bool:
        """True if a prompt has had no row yet."""
        return bool(self._waiting)

    @property
    def busy(self) -> bool:
        """True if a row has a prompt."""
        return any(prompt is not None for prompt in self.row_prompts)

    def replicate(self, x: Array | np.ndarray | np.generic) -> Array:
        """Copy an array to every device of the parameters.

        The layout is the one that programs over the parameters return; another layout would compile another program.
        """
        if self._mesh is None:
            return jax.device_put(x, self._sharding)
        host = np.asarray(x)
        sharding = NamedSharding(self._mesh, PartitionSpec())
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    @contextmanager
    def on_mesh(self) -> Iterator[None]:
        """Set the mesh over which kernels are split, and the precision of products, for running steps."""
        mesh = nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)
        with mesh, at_precision(self._precision):
            yield

    def gather_to_host(self, tree: Any) -> Any:
        """Copy whole arrays to the host, in every process."""
        return gather_to_host(tree, self._mesh)

    def local_to_host(self, tree: Any, rows: int) -> Any:
        """Copy this process's rows to the host, and scalars of every row; `rows` is the axis of the rows."""
        return local_to_host(tree, self._mesh, rows)

    def call(self, program: Any, *arguments: Any, **static: Any) -> Any:
        """Call a program of the model on the mesh; wait first for the threads that compile it."""
        for compiled in [compiled for other, compiled in self._compiling if other is program]:
            compiled.result()
        self._compiling = [pair for pair in self._compiling if pair[0] is not program]
        with self.on_mesh():
            return program(self._params, *arguments, **self._static, **static)

    def compile_ahead(self, decode: Any, *arguments: Any, **static: Any) -> None:
        """Start to compile the programs of the first prompts in threads, where the parameters may be shapes.

        Nothing is compiled ahead for images, nor on a mesh, where the states would need their layouts.

        Args:
          decode: program that runs steps.
          arguments: its arguments after parameters and state.
          static: its static arguments beside config and probes.
        """
        if self._mesh is not None or self._images is not None:
            return

        def shapes(program: Any, *arguments: Any, **options: Any) -> Any:
            result = program.eval_shape(*arguments, **options)
            return jax.tree.map(lambda x: x.update(sharding=self._sharding), result)

        first = sorted(
            zip(range(len(self.row_prompts)), self._waiting, strict=False),
            key=lambda pair: self._entries[pair[1]].prefill,
        )
        groups = [self._sizes([self._entries[prompt] for _, prompt in group]) for group in self._groups(first)]
        numbers, ints = np.zeros(self._group, int), np.zeros(self._group, np.int32)
        with self.on_mesh():
            for widths, options in {tuple(widths): (widths, options) for widths, options in groups}.values():
                rows = self._key, numbers, *_lengths([EMPTY] * self._group), None
                state = shapes(init_rows, self._params, *rows, **options, **self._static)
                for width in dict.fromkeys(widths):
                    tokens = np.zeros((self._group, width), np.int32)
                    program, rest = self._chunk(state, tokens, ints, tokens, None)
                    self._compile(program, *rest)
                    state = shapes(program, self._params, *rest, **self._static)
                    state = state[0] if self._probes.prompt_positions else state
            template = dataclasses.replace(state, token=ints, remaining=ints)
            slots = max(self._entries[prompt].slots(self._config.context) for _, prompt in first)
            options = {"config": self._config, "slots": slots, **self._cache}
            idle = shapes(idle_rows, template, rows=len(self.row_prompts), **options)
            self._compile(decode, shapes(insert_rows, idle, template, numbers, **options), *arguments, **static)

    def _compile(self, program: Any, *arguments: Any, **static: Any) -> None:
        compiled = compile_in_thread(program, self._params, *arguments, **self._static, **static)
        self._compiling.append((program, compiled))

    def release(self, rows: Bool[np.ndarray, " B"]) -> None:
        """Make rows idle."""
        for row in np.flatnonzero(rows):
            self.visible.pop(cast(int, self.row_prompts[row]), None)
            self.row_prompts[row] = None

    def admit(self) -> None:
        """Put waiting prompts, in order, into the idle rows."""
        idle = [row for row, prompt in enumerate(self.row_prompts) if prompt is None]
        admitted = [(row, self._waiting.popleft()) for row in idle[: len(self._waiting)]]
        for row, prompt in admitted:
            self.row_prompts[row] = prompt
        images = {prompt: next(self._images) for _, prompt in admitted} if self._images else {}
        self.visible |= {prompt: each.visible for prompt, each in images.items()}
        admitted.sort(key=lambda pair: self._entries[pair[1]].prefill)
        for group in self._groups(admitted):
            padding = self._group - len(group)
            new = self._prefilled(group, padding, images)
            self._fit_cache(new)
            rows = np.array([row for row, _ in group] + [len(self.row_prompts)] * padding)
            self.state = insert_rows(self.state, new, rows, config=self._config, slots=self.slots, **self._cache)

    def _groups(self, admitted: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """Yield the (row, prompt) pairs that are prefilled together; in a deterministic run their chunks are equal."""

        def widths(pair: tuple[int, int]) -> list[int] | None:
            return chunk_widths(self._entries[pair[1]].prefill) if self._deterministic else None

        for _, pairs in itertools.groupby(admitted, widths):
            alike = list(pairs)
            for start in range(0, len(alike), self._group):
                yield alike[start : start + self._group]

    def _prefilled(self, group: list[tuple[int, int]], padding: int, images: dict[int, PromptImages]) -> State:
        """Return a state of the group's prompts after their prefill, and of `padding` rows without a prompt."""
        prompts = [prompt for _, prompt in group]
        entries = [self._entries[prompt] for prompt in prompts] + [EMPTY] * padding
        numbers = np.array([self._numbers[prompt] for prompt in prompts] + [0] * padding)
        widths, options = self._sizes(entries)
        stacked_images, image_masks = None, None
        if images:
            of_rows = [images[prompt] for prompt in prompts]
            of_rows += [PromptImages(jax.tree.map(np.zeros_like, of_rows[0].images), of_rows[0].visible[:1])] * padding
            stacked_images = jax.tree.map(lambda *xs: np.stack(xs), *(each.images for each in of_rows))
            image_masks = [each.visible for each in of_rows]
        lengths = _lengths(entries)
        with at_precision(self._precision):  # of the image encoder
            state = init_rows(self._params, self._key, numbers, *lengths, stacked_images, **options, **self._static)
        fed = chunks([entry.tokens[: entry.prefill] for entry in entries], widths)
        following = chunks([entry.tokens[1 : entry.prefill + 1] for entry in entries], widths)
        masks = [None] * len(widths) if image_masks is None else (mask for mask, _ in chunks(image_masks, widths))
        for (tokens, count), (targets, _), visible in zip(fed, following, masks, strict=True):
            program, arguments = self._chunk(state, tokens, count, targets, visible)
            if not self._probes.prompt_positions:
                state = self.call(program, *arguments)
                continue
            state, trace = self.call(program, *arguments)
            if self._sampler.decides:
                trace = dataclasses.replace(trace, quadrant=jnp.full_like(trace.token, -1))
            self.prompt_traces.append((group, trace, count))
        if image_masks is not None:
            assert state.image_mask is not None
            last: Any = np.array([mask[entry.prefill] for mask, entry in zip(image_masks, entries, strict=True)])
            state = dataclasses.replace(state, image_mask=ImageMask(state.image_mask.row_tiles, last[:, None]))
        return dataclasses.replace(
            state,
            token=np.array([entry.tokens[entry.prefill] for entry in entries], np.int32),
            remaining=np.array([entry.draws for entry in entries], np.int32),
        )

    def _sizes(self, entries: Sequence[PoolEntry]) -> tuple[list[int], dict[str, Any]]:
        """Return the widths of the chunks that prefill a group of rows, and the options of their state."""
        widths = chunk_widths(max(entry.prefill for entry in entries))
        slots = cache_slots(sum(widths), self._config.context)
        return widths, {"sampler": self._sampler, "slots": slots, **self._cache}

    def _chunk(self, state: State, tokens: Any, count: Any, targets: Any, visible: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return the program that feeds a chunk of prompts, and its arguments after the parameters."""
        if self._probes.prompt_positions:
            return score_chunk, (state, tokens, count, targets, visible, *self.interventions_and_lens)
        return _prefill_chunk, (state, tokens, count, visible, self.interventions_and_lens[0])

    def _fit_cache(self, template: State) -> None:
        """Resize the cache to what the running prompts need; create the pool's state before the first prompts."""
        running = [self._entries[prompt] for prompt in self.row_prompts if prompt is not None]
        slots = max(entry.slots(self._config.context) for entry in running)
        rows = len(self.row_prompts)
        if self.slots == 0:
            self.state = idle_rows(template, config=self._config, rows=rows, slots=slots, **self._cache)
        elif slots > self.slots or (slots * TOO_LARGE <= self.slots and len(running) == rows):
            self.state = resize_cache(self.state, config=self._config, slots=slots, **self._cache)
        else:
            return
        self.slots = slots


def round_up(count: int, divisor: int) -> int:
    """Return the smallest multiple of `divisor` that is at least `count`."""
    return -(-count // divisor) * divisor


def group_size(rows: int, parts: int) -> int:
    """Return the number of prompts that are prefilled together, in a pool of rows that a mesh splits into parts."""
    return round_up(max(1, rows // GROUPS), parts)


def _lengths(entries: Sequence[PoolEntry]) -> Int[np.ndarray, "3 A"]:
    """Return the lengths that `init_rows` takes of each row."""
    return np.array([(entry.prompt, entry.prefill, len(entry.tokens)) for entry in entries], np.int32).T


EMPTY = PoolEntry(np.zeros(1, np.int32), 0, 1, 0, 1)
_prefill_chunk = jax.jit(prefill, static_argnames=("config", "probes"), donate_argnames="state")
score_chunk = jax.jit(score_step, static_argnames=("config", "probes"), donate_argnames="state")


def _prefetch(load: Callable[[int], T], count: int, ahead: int) -> Iterator[T]:
    """Yield load(0) … load(count − 1), computed in a thread up to `ahead` items in advance."""
    executor = ThreadPoolExecutor(1)
    try:
        pending = deque(executor.submit(load, i) for i in range(min(ahead, count)))
        for i in range(count):
            if i + ahead < count:
                pending.append(executor.submit(load, i + ahead))
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
