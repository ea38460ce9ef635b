"""The engine's programs, compiled from abstract parameters and states for devices that need not exist here."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxtrace.engine.buckets import cache_chunk, cache_slots, chunk_widths
from jaxtrace.engine.loop import decode_chunk
from jaxtrace.engine.pool import group_size, round_up
from jaxtrace.engine.samplers import Greedy
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.step import State, StopRules, init_state, prefill, score_step
from jaxtrace.kernels import compiling_for
from jaxtrace.memory import UNITS
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.images import Images
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from jaxtrace.settings.probes import Probes


@dataclasses.dataclass(frozen=True)
class Job:
    """A run and its devices.

    Attributes:
      config: decoder; a vision model has one image with the most tiles in each row.
      params: abstract parameters, each with its sharding.
      platform: "tpu" or "cpu".
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
        """Return a job with the platform's layout of layers: stacked on a TPU, unrolled elsewhere."""
        stacked = platform == "tpu"
        shardings = param_shardings(config, mesh, stacked=stacked)
        shapes = abstract_params(config, stacked=stacked, dtype=dtype)
        rows = round_up(batch, mesh.shape.get("data", 1))
        return cls(config, _placed(shapes, shardings), shardings["embedding"].mesh, platform, rows, context, probes)

    @property
    def group(self) -> int:
        """Number of rows that the engine prefills together."""
        return group_size(self.batch, self.mesh.shape.get("data", 1))

    @property
    def chunk(self) -> int:
        """Positions of a row that one call prefills."""
        return chunk_widths(self.context)[0]

    @property
    def slots(self) -> int:
        """Positions that a row's cache holds."""
        return cache_slots(self.context, self.config.context)

    @property
    def prefills(self) -> int:
        """Number of prefill calls that feed the prompts of all rows."""
        return -(-self.batch // self.group) * len(chunk_widths(self.context))

    def state(self, rows: int) -> State:
        """Return the abstract state of a number of rows, with its shardings."""
        sizes = {"batch": rows, "slots": self.slots, "chunk": cache_chunk(self.probes)}
        make = functools.partial(init_state, self.config, probes=self.probes, **sizes)
        with jax.set_mesh(self.mesh), compiling_for(self.platform):
            state = jax.eval_shape(lambda params, images: make(params, images=images), self.params, self._images(rows))
        return _placed(state, state_shardings(state, self.mesh))

    def lowered_decode(self) -> jax.stages.Lowered:
        """Return one call of `Settings.steps` decode steps of all rows."""
        stop, patience = StopRules(_abstract(jnp.int32, 1), _abstract(jnp.int32)), _abstract(jnp.int32)
        function = inspect.unwrap(decode_chunk)  # jitting it again drops the traces for another platform
        decode = functools.partial(function, sampler=Greedy(), steps=Settings.steps)
        return self._lowered(decode, self.state(self.batch), stop, patience)

    def lowered_prefill(self) -> jax.stages.Lowered:
        """Return one call that feeds a chunk of positions to a group of rows, measured if the probes say so."""
        rows, width = self.group, self.chunk
        vision = self.config.vision
        visible = None if vision is None else _abstract(jnp.bool_, rows, width, vision.max_tiles)
        tokens, count = _abstract(jnp.int32, rows, width), _abstract(jnp.int32, rows)
        if self.probes.prompt_positions:
            return self._lowered(score_step, self.state(rows), tokens, count, tokens, visible)
        return self._lowered(prefill, self.state(rows), tokens, count, visible)

    def _lowered(self, function: Callable[..., Any], state: State, *arguments: Any) -> jax.stages.Lowered:
        function = functools.partial(function, config=self.config, probes=self.probes)
        # Arguments that a program does not use are on the device all the same.
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
            tile_mask=_abstract(jnp.bool_, rows, 1, tiles),
        )


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Memory and text of a compiled program.

    Attributes:
      needed: bytes of a device's memory, arguments and results included.
      returned: bytes of results that reuse no argument's memory.
      text: HLO; None if the program does not fit and was not compiled.
    """

    needed: int
    returned: int
    text: str | None


def compile_program(lowered: jax.stages.Lowered) -> Compiled:
    """Compile a program, or read from the compiler's refusal how much memory the program needs."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return Compiled(_refused_bytes(error), 0, None)
    memory: Any = compiled.memory_analysis()
    returned = memory.output_size_in_bytes - memory.alias_size_in_bytes
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Compiled(used + returned, returned, compiled.as_text())


def shard_size(x: Any) -> int:
    """Return the entries of an abstract array on each device."""
    return math.prod(x.sharding.shard_shape(x.shape))


def shard_bytes(tree: Any) -> int:
    """Return the bytes of abstract arrays on each device."""
    return sum(shard_size(x) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _refused_bytes(error: Exception) -> int:
    """Return the bytes that a program needs, from an out-of-memory error; raise any other error again."""
    match = re.search(r"required [^(]*\(([\d.]+)([KMGT]?)\) exceeds available HBM", str(error))
    if match is None:
        raise error
    return int(float(match[1]) * UNITS[match[2]])


def _abstract(dtype: Any, *shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
    )
