"""The engine's own programs, compiled for devices that need not be there: abstract parameters and states in."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxtrace.engine.buckets import cache_slots, chunk_widths
from jaxtrace.engine.loop import decode_chunk
from jaxtrace.engine.pool import group_size, multiple
from jaxtrace.engine.samplers import Greedy
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.step import State, StopRules, init_state, prefill, score_step
from jaxtrace.kernels import compiling_for
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.images import Images
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from jaxtrace.settings.probes import Probes

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to run, and where.

    Attributes:
      config: of the decoder; one that sees images has one of most tiles in each row.
      params: its parameters, abstract, each with its sharding.
      mesh: that they are on.
      platform: "tpu" or "cpu".
      batch: rows that run together.
      context: positions of each.
      probes: what is measured.
    """

    config: DecoderConfig
    params: Params
    mesh: Mesh
    platform: str
    batch: int
    context: int
    probes: Probes

    @classmethod
    def of(
        cls, config: DecoderConfig, mesh: Mesh, platform: str, batch: int, context: int, probes: Probes, dtype: Any
    ) -> Job:
        """A job with the layout of layers that the platform is given: stacked on a TPU, unrolled elsewhere."""
        stacked = platform == "tpu"
        shardings = param_shardings(config, mesh, stacked=stacked)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), abstract_params(config, stacked=stacked))
        rows = multiple(batch, mesh.shape.get("data", 1))
        return cls(config, _placed(shapes, shardings), shardings["embedding"].mesh, platform, rows, context, probes)

    @property
    def group(self) -> int:
        """Rows that are prefilled together, as the engine does it."""
        return group_size(self.batch, self.mesh.shape.get("data", 1))

    @property
    def chunk(self) -> int:
        """Positions of a row that are prefilled at once."""
        return chunk_widths(self.context)[0]

    @property
    def slots(self) -> int:
        """Positions that a cache holds."""
        return cache_slots(self.context, self.config.context)

    @property
    def prefills(self) -> int:
        """Calls that feed a chunk, until the prompts of all rows are fed."""
        return -(-self.batch // self.group) * len(chunk_widths(self.context))

    def state(self, rows: int) -> State:
        """The state of so many rows, abstract, with its shardings."""
        make = functools.partial(init_state, self.config, batch=rows, slots=self.slots, probes=self.probes)
        with jax.set_mesh(self.mesh), compiling_for(self.platform):
            state = jax.eval_shape(lambda params, images: make(params, images=images), self.params, self._images(rows))
        return _placed(state, state_shardings(state, self.mesh))

    def lowered_decode(self) -> jax.stages.Lowered:
        """A call of decode steps: `Settings.steps` of them, all rows."""
        stop, patience = StopRules(_abstract(jnp.int32, 1), _abstract(jnp.int32)), _abstract(jnp.int32)
        decode = functools.partial(_undecorated(decode_chunk), sampler=Greedy(), steps=Settings.steps)
        return self._lowered(decode, self.state(self.batch), stop, patience)

    def lowered_prefill(self) -> jax.stages.Lowered:
        """A call that feeds a chunk of positions to a group of rows, and measures them if the probes ask for that."""
        rows, width = self.group, self.chunk
        vision = self.config.vision
        visible = None if vision is None else _abstract(jnp.bool_, rows, width, vision.max_tiles)
        tokens, count = _abstract(jnp.int32, rows, width), _abstract(jnp.int32, rows)
        if self.probes.prompt_positions:
            return self._lowered(score_step, self.state(rows), tokens, count, tokens, visible)
        return self._lowered(prefill, self.state(rows), tokens, count, visible)

    def _lowered(self, function: Callable[..., Any], state: State, *arguments: Any) -> jax.stages.Lowered:
        function = functools.partial(function, config=self.config, probes=self.probes)
        # What a program does not use is on the device all the same.
        jitted = jax.jit(function, donate_argnames="state", keep_unused=True)
        with jax.set_mesh(self.mesh), compiling_for(self.platform):
            return jitted.lower(self.params, state, *arguments)

    def _images(self, rows: int) -> Images | None:
        vision = self.config.vision
        if vision is None:
            return None
        tiles, side = vision.max_tiles, vision.image_size
        return Images(
            pixels=_abstract(jnp.float32, rows, 1, tiles, vision.channels, side, side),
            aspect_ratio=_abstract(jnp.int32, rows, 1),
            tiles=_abstract(jnp.bool_, rows, 1, tiles),
        )


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program.

    Attributes:
      needed: bytes of a device's memory, arguments and results included.
      returned: those of results that take no argument's place.
      text: its HLO; None where it does not fit, and was given up.
    """

    needed: int
    returned: int
    text: str | None


def compile_program(lowered: jax.stages.Lowered) -> Compiled:
    """Compiles a program; one that the compiler gives up for want of memory says what it would have needed."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return Compiled(_wanted(error), 0, None)
    memory: Any = compiled.memory_analysis()
    returned = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Compiled(held + returned, returned, compiled.as_text())


def shard_size(x: Any) -> int:
    """Entries of an abstract array on each device."""
    return math.prod(x.sharding.shard_shape(x.shape))


def shard_bytes(tree: Any) -> int:
    """Bytes of abstract arrays on each device."""
    return sum(shard_size(x) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _wanted(error: Exception) -> int:
    """Bytes that the compiler says a program needs, in its refusal; raises other errors again."""
    found = re.search(r"required [^(]*\(([\d.]+)([KMGT]?)\) exceeds available HBM", str(error))
    if found is None:
        raise error
    return int(float(found[1]) * UNITS[found[2]])


def _abstract(dtype: Any, *shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
    )


def _undecorated(jitted: Any) -> Callable[..., Any]:
    """The function that was jitted: jitted again, nothing of what was traced for another platform is kept."""
    return jitted.__wrapped__
