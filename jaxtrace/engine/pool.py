"""A pool of rows that run together: prompts are begun in a state of their own, and replace those that are done."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from jaxtrace.engine.buckets import cache_slots, chunk_widths, chunks
from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.slots import begin, put, repeat, resize
from jaxtrace.engine.step import State, prefill, score_step
from jaxtrace.engine.translators import Translators
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.images import Images
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.layers import Sight
from jaxtrace.parallel.processes import everyone, fetched, own_rows

GROUPS = 4  # a full pool is begun in so many groups: few programs, and short prompts are not padded to long ones
TOO_LARGE = 4  # a cache so many times larger than its rows need is cut to their size
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A prompt to run.

    Attributes:
      tokens: its ids.
      fed: how many of them are fed before its row takes its place.
      positions: how many its row may come to feed in all.
      draws: how many tokens it may draw.
    """

    tokens: Int[np.ndarray, " P"]
    fed: int
    positions: int
    draws: int


@dataclasses.dataclass(frozen=True)
class Looked:
    """The images of a prompt.

    Attributes:
      images: `Images` without the rows' axis.
      visible: which tiles each token sees.
    """

    images: Images
    visible: Bool[np.ndarray, "P M"]


Look = Callable[[int], Looked]  # of a prompt by its index; one without images has empty ones, as many


class Pool:
    """B rows that run together, each with a prompt or idle; as many more as a mesh needs to split them evenly.

    The cache has as many slots as the rows need, in few sizes. It grows when a prompt comes that needs more.

    Attributes:
      state: of the rows.
      slots: positions that its cache holds.
      holders: the prompt of each row, None for an idle one.
      visible: which tiles the tokens of the held prompts see, by prompt; empty without images.
      own: the rows whose traces this process, of several, reads.
      measured: of the positions that new prompts fed, where these are probed: (row, prompt) pairs, their traces
        [A, T, …], and how many of the T positions are each row's own.
      changes: the interventions and the lens that every step takes, where the parameters are.
    """

    state: State

    def __init__(
        self,
        config: DecoderConfig,
        params: Params,
        settings: Settings,
        entries: Sequence[Entry],
        numbers: Sequence[int] | None = None,
        look: Look | None = None,
        lens: Translators | None = None,
    ):
        """A pool of idle rows.

        Args:
          config, params, settings: of the run.
          entries: the prompts.
          numbers: that seed the prompts' draws; their indices if None.
          look: how a prompt's images are had, a few prompts ahead of their use; None where no prompt has any.
          lens: of the lens metrics, placed as the parameters are; None for the logit lens.
        """
        where = params["embedding"].sharding if params["embedding"].committed else None
        self._config, self._params, self._probes, self._entries = config, params, settings.probes, entries
        self._sampler = settings.sampler
        self._mesh = cast(Mesh, where.mesh) if isinstance(where, NamedSharding) else None
        parts = 1 if self._mesh is None else self._mesh.shape.get("data", 1)
        size = multiple(min(settings.batch_size, len(entries)), parts)
        self._where = where
        self._key = jax.random.wrap_key_data(self.everywhere(jax.random.key_data(jax.random.key(settings.seed))))
        interventions = jax.tree.map(self.everywhere, settings.interventions)
        self.changes: tuple[Interventions | None, Translators | None] = (interventions, lens)
        self._numbers = range(len(entries)) if numbers is None else numbers
        self._group = group_size(size, parts)
        self._waiting = deque(range(len(entries)))
        self._looks = look and _ahead(look, len(entries), self._group)
        self.slots = 0
        self.holders: list[int | None] = [None] * size
        self.visible: dict[int, Bool[np.ndarray, "P M"]] = {}
        self.own = own_rows(self._mesh, size)
        self.measured: list[tuple[list[tuple[int, int]], StepTrace, Int[np.ndarray, " A"]]] = []

    @property
    def waiting(self) -> bool:
        """Whether there are prompts that have had no row yet."""
        return bool(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a row has a prompt."""
        return any(holder is not None for holder in self.holders)

    def everywhere(self, x: Array | np.ndarray | np.generic) -> Array:
        """An array where the parameters are, as a program of them returns it: another place is another program."""
        if self._mesh is None:
            return jax.device_put(x, self._where)
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, NamedSharding(self._mesh, PartitionSpec()), lambda at: host[at])

    def on_mesh(self) -> AbstractContextManager[Any]:
        """Where the steps are run: kernels are split over the mesh that is set."""
        return nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    def everyone(self, tree: Any) -> Any:
        """Arrays on the host, in every process."""
        return everyone(tree, self._mesh)

    def fetched(self, tree: Any, rows: int) -> Any:
        """Arrays on the host, of this process's rows; `rows` is their axis. Scalars are of every row."""
        return fetched(tree, self._mesh, rows)

    def release(self, rows: Bool[np.ndarray, " B"]) -> None:
        """Makes rows idle."""
        for row in np.flatnonzero(rows):
            self.visible.pop(cast(int, self.holders[row]), None)
            self.holders[row] = None

    def admit(self) -> None:
        """Puts waiting prompts, in order, into all idle rows."""
        idle = [row for row, holder in enumerate(self.holders) if holder is None]
        taken = [(row, self._waiting.popleft()) for row in idle[: len(self._waiting)]]
        for row, prompt in taken:
            self.holders[row] = prompt
        looks = {prompt: next(self._looks) for _, prompt in taken} if self._looks else {}
        self.visible |= {prompt: looked.visible for prompt, looked in looks.items()}
        taken.sort(key=lambda pair: self._entries[pair[1]].fed)
        for at in range(0, len(taken), self._group):
            group = taken[at : at + self._group]
            missing = self._group - len(group)
            begun = self._begun(group, missing, looks)
            self._make_room(begun)
            rows = np.array([row for row, _ in group] + [len(self.holders)] * missing)
            self.state = put(self.state, begun, rows, config=self._config, slots=self.slots, mesh=self._mesh)

    def _begun(self, group: list[tuple[int, int]], missing: int, looks: dict[int, Looked]) -> State:
        """A state of rows whose prompts were fed as far as they say, and of some without a prompt."""
        prompts = [prompt for _, prompt in group]
        entries = [self._entries[prompt] for prompt in prompts] + [NOTHING] * missing
        numbers = np.array([self._numbers[prompt] for prompt in prompts] + [0] * missing)
        widths = chunk_widths(max(entry.fed for entry in entries))
        slots = cache_slots(sum(widths), self._config.context)
        images, sights = None, None
        if looks:
            found = [looks[prompt] for prompt in prompts]
            found += [Looked(jax.tree.map(np.zeros_like, found[0].images), found[0].visible[:1])] * missing
            images = jax.tree.map(lambda *xs: np.stack(xs), *(looked.images for looked in found))
            sights = [looked.visible for looked in found]
        static = {"config": self._config, "probes": self._probes}
        options = {"sampler": self._sampler, "slots": slots, "mesh": self._mesh}
        state = begin(self._params, self._key, numbers, images, **options, **static)
        pieces = chunks([entry.tokens[: entry.fed] for entry in entries], widths)
        ahead = chunks([entry.tokens[1 : entry.fed + 1] for entry in entries], widths)
        seen = [None] * len(widths) if sights is None else (visible for visible, _ in chunks(sights, widths))
        with self.on_mesh():
            for (tokens, count), (targets, _), visible in zip(pieces, ahead, seen, strict=True):
                if self._probes.prompt_positions:
                    state, trace = score(self._params, state, tokens, count, targets, visible, *self.changes, **static)
                    if self._sampler.decides:
                        trace = dataclasses.replace(trace, quadrant=jnp.full_like(trace.token, -1))
                    self.measured.append((group, trace, count))
                else:
                    state = _prefill(self._params, state, tokens, count, visible, self.changes[0], **static)
        if sights is not None:
            assert state.sight is not None
            last: Any = np.array([visible[entry.fed] for visible, entry in zip(sights, entries, strict=True)])
            state = dataclasses.replace(state, sight=Sight(state.sight.own, last[:, None]))
        return dataclasses.replace(
            state,
            token=np.array([entry.tokens[entry.fed] for entry in entries], np.int32),
            remaining=np.array([entry.draws for entry in entries], np.int32),
        )

    def _make_room(self, begun: State) -> None:
        """Gives the cache as many slots as the prompts of its rows need; makes the state where there is none."""
        held = [self._entries[prompt] for prompt in self.holders if prompt is not None]
        need = max(max(entry.positions, sum(chunk_widths(entry.fed))) for entry in held)
        slots = cache_slots(need, self._config.context)
        rows = len(self.holders)
        if self.slots == 0:
            self.state = repeat(begun, config=self._config, rows=rows, slots=slots, mesh=self._mesh)
        elif slots > self.slots or (slots * TOO_LARGE <= self.slots and len(held) == rows):
            self.state = resize(self.state, config=self._config, slots=slots, mesh=self._mesh)
        else:
            return
        self.slots = slots


def multiple(count: int, parts: int) -> int:
    """The least number that is no smaller and can be split evenly."""
    return -(-count // parts) * parts


def group_size(rows: int, parts: int) -> int:
    """How many prompts are begun together, of a pool of so many rows that are split into parts."""
    return multiple(max(1, rows // GROUPS), parts)


NOTHING = Entry(np.zeros(1, np.int32), 0, 1, 0)
_prefill = jax.jit(prefill, static_argnames=("config", "probes"), donate_argnames="state")
score = jax.jit(score_step, static_argnames=("config", "probes"), donate_argnames="state")


def _ahead(make: Callable[[int], T], count: int, ahead: int) -> Iterator[T]:
    """make(0) … make(count − 1), made in a thread, up to so many ahead."""
    executor = ThreadPoolExecutor(1)
    try:
        pending = deque(executor.submit(make, i) for i in range(min(ahead, count)))
        for i in range(count):
            if i + ahead < count:
                pending.append(executor.submit(make, i + ahead))
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
