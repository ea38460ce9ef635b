"""Check whether a traced run fits a slice of accelerators, and what limits its speed (no accelerator needed)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.gguf.files import is_gguf_file
from jaxtrace.checkpoints.huggingface import read_shape
from jaxtrace.engine.buckets import cache_chunk, cache_slots
from jaxtrace.errors import ConfigError
from jaxtrace.kernels import precision_name
from jaxtrace.model import open_random_model
from jaxtrace.models.cache import recurrent_states, window_slots
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.on_mesh import MODEL_AXES
from jaxtrace.parallel.automatic import automatic_mesh
from jaxtrace.parallel.mesh import make_mesh, mesh_text
from jaxtrace.parallel.mesh import mesh as mesh_of
from jaxtrace.planning.hlo import Collective, collectives, kernels
from jaxtrace.planning.program import Compiled, Job, compile_program, shard_bytes
from jaxtrace.planning.topology import Topology, find_topology
from jaxtrace.planning.work import Work, decode_work, prefill_work
from jaxtrace.settings.mesh import mesh_sizes
from jaxtrace.settings.numbers import Count, Rows
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.run import DEMO, DTYPES
from jaxtrace.settings.validation import StrictModel, validated

CONTEXT = 4096
PASSES = {"high": 3, "highest": 6}  # bfloat16 products that make up one of float32 on a TPU: `jax.lax.Precision`


class _Ranges(StrictModel):
    batch: Rows
    context: Count


@dataclass(frozen=True)
class Request:
    """A run to plan.

    Attributes:
      model: name as the user gave it.
      mesh: mesh over the slice's devices, as --mesh takes it; None for the automatic choice.
      context: positions of each row.
    """

    model: str
    config: DecoderConfig
    topology: Topology
    mesh: str | None
    dtype: str
    batch: int
    context: int
    probes: Probes

    @property
    def window_slots(self) -> int | None:
        """Largest number of positions that a layer with a window holds; None if all layers hold all positions."""
        slots, chunk = cache_slots(self.context, self.config.context), cache_chunk(self.probes)
        kept = [window_slots(self.config, kind, slots, chunk) for kind in self.config.pattern if kind.caches_text]
        return max((each for each in kept if each is not None), default=None)

    def job(self) -> Job:
        """Return the run, ready to compile; raise ConfigError if the mesh does not divide the slice or the model."""
        mesh, platform = self._mesh(), self.topology.platform
        return Job.of(self.config, mesh, platform, self.batch, self.context, self.probes, jnp.dtype(self.dtype))

    def _mesh(self) -> Mesh:
        devices = self.topology.devices()
        if self.mesh is None:
            itemsize = jnp.dtype(self.dtype).itemsize
            memory = None if self.topology.platform == "cpu" else self.topology.usable
            return automatic_mesh(self.config, itemsize, devices, memory) or mesh_of(devices=devices)
        size = math.prod(mesh_sizes(self.mesh).values())
        if size != len(devices):
            raise ConfigError(
                f"mesh {self.mesh!r}: has {size} devices, but {self.topology.name} has {len(devices)}; "
                "choose sizes with that product, or another topology"
            )
        return make_mesh(self.mesh, devices)


@dataclass(frozen=True)
class Program:
    """Memory and work of one program of a run, on each device.

    Attributes:
      weights: bytes of the parameters, including an image encoder's.
      state: bytes of the rows' caches and of their other state.
      traces: bytes of the metrics of two calls of decode steps, since one call's are copied to the host while the next
        one runs; if prompts are measured, plus the metrics of all prompts.
      temporaries: bytes of everything else: intermediate results, the program, padding of arrays.
      compiled: False if compilation ran out of device memory; then `collectives` and `kernels` are empty.
      collectives: collectives by kind, of one decode step or one chunk of prefill.
      kernels: names of the Mosaic kernels.
      work: bytes moved and operations, compiled or not.
      recurrent: bytes of recurrent states in `state`, which do not grow with the positions.
    """

    weights: int
    state: int
    traces: int
    temporaries: int
    compiled: bool
    collectives: dict[str, Collective]
    kernels: tuple[str, ...]
    work: Work
    recurrent: int = 0

    @property
    def total(self) -> int:
        """Bytes of a device's memory while the program runs."""
        return self.weights + self.state + self.traces + self.temporaries


@dataclass(frozen=True)
class Plan:
    """Memory and speed of a run on a slice.

    Attributes:
      mesh: sizes of the mesh's axes.
      decode: decode step of all rows.
      prefill: prefill of one chunk of a group of rows, beside the state of all rows.
      prefill_rows: rows of the group.
      prefill_positions: positions of the chunk.
      precision: precision of products, from JAX's setting and the dtype.
    """

    request: Request
    mesh: dict[str, int]
    decode: Program
    prefill: Program
    prefill_rows: int
    prefill_positions: int
    precision: str = "default"

    @property
    def headroom(self) -> int:
        """Bytes of a device's memory that the larger program leaves free; negative if it does not fit."""
        return self.request.topology.usable - max(self.decode.total, self.prefill.total)

    @property
    def fits(self) -> bool:
        """Whether both programs fit."""
        return self.headroom >= 0 and self.decode.compiled and self.prefill.compiled

    def seconds(self, work: Work) -> tuple[float, float] | None:
        """Return the least seconds for the bytes and for the operations; None without published rates."""
        chip = self.request.topology.chip
        if chip.bandwidth is None or chip.flops is None:
            return None
        passes = PASSES.get(self.precision, 1) if self.request.dtype == "float32" else 1
        operations = passes * work.all_flops
        return work.all_bytes / (chip.bandwidth / chip.devices), operations / (chip.flops / chip.devices)

    def collective_seconds(self, program: Program) -> float | None:
        """Return the least seconds of a program's collectives, one after another; None without published links."""
        chip, seconds = self.request.topology.chip, 0.0
        for each in program.collectives.values():
            one = chip.collective_seconds(self.mesh["model"], each.bytes / each.count)
            if one is None:
                return None
            seconds += each.count * one
        return seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON; bytes and operations are per device."""
        request, topology = self.request, self.request.topology
        fields: dict[str, Any] = {
            "model": request.model,
            "topology": topology.name,
            "chips": topology.chips,
            "devices": topology.chips * topology.chip.devices,
            "mesh": mesh_text(self.mesh),
            "dtype": request.dtype,
            "matmul_precision": self.precision,
            "batch": request.batch,
            "context": request.context,
            "window_slots": request.window_slots,
            "probes": list(request.probes.groups),
            "layer_stride": request.probes.layer_stride,
            **request.probes.lens_choice,
            "usable": topology.usable,
            "headroom": self.headroom,
            "fits": self.fits,
        }
        for name, program in (("decode", self.decode), ("prefill", self.prefill)):
            times = self.seconds(program.work) or (None, None)
            fields[name] = dataclasses.asdict(program) | {"total": program.total}
            fields[name] |= dict(zip(("bandwidth_seconds", "compute_seconds"), times, strict=True))
            fields[name]["collective_seconds"] = self.collective_seconds(program)
        return fields


def plan(
    model: str,
    topology: str,
    *,
    batch: int = 8,
    context: int | None = None,
    probes: Probes | None = None,
    dtype: str | None = None,
    mesh: str | None = None,
) -> Plan:
    """Compile a run's programs for a slice of accelerators, without the hardware and without reading weights.

    A vision model has one image with the most tiles in each row. The encoder's weights and the image's keys and values
    count; the encoder's intermediate results do not.

    Args:
      model: name from `jaxtrace models`, "demo", or a directory with a config.json.
      topology: kind and number of chips, such as "v5e-16"; or "cpu-8" for CPU devices of this process.
      batch: number of rows that run together.
      context: positions of each row, prompt and new tokens; None for 4096, or the model's context if shorter.
      probes: measured metrics; None for all groups.
      dtype: dtype of parameters and caches; None for bfloat16 on TPUs and float32 on CPUs.
      mesh: mesh over the slice's devices, such as "data=2,model=8"; None for the automatic choice.

    Raises:
      ConfigError: the topology is unknown, the mesh does not divide it or the model, or a number is out of range.
      CheckpointError: the model is unknown.
    """
    config, slice_ = _config(model), find_topology(topology)
    dtype = dtype or ("float32" if slice_.platform == "cpu" else "bfloat16")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: is {dtype!r}; it must be one of {', '.join(sorted(DTYPES))}")
    probes = (probes or Probes.all()).of_model(config)
    probes.check(config)
    context = min(CONTEXT, config.context) if context is None else context
    validated(_Ranges, {"batch": batch, "context": context}, "plan")
    if context > config.context:
        raise ConfigError(f"plan: context is {context}; {model} has {config.context} positions, so give fewer")
    return planned(Request(model, config, slice_, mesh, dtype, batch, context, probes))


def planned(request: Request) -> Plan:
    """Return the plan of a request, whether it fits or not; raise ConfigError if its mesh is wrong."""
    job = request.job()
    lowered = job.lowered_decode(), job.lowered_prefill()
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        # JAX's compile cache cannot load programs for absent TPUs: it warns, and compiles again.
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry", UserWarning)
        decode, prefill = pool.map(compile_program, lowered)
    states = job.state(job.batch), job.state(job.group)
    batch_state, group_state = map(shard_bytes, states)
    batch_recurrent, group_recurrent = (shard_bytes(recurrent_states(state.cache)) for state in states)
    traces = 2 * decode.returned
    prompt_traces = job.prefills * prefill.returned if job.probes.prompt_positions else 0
    prefill_total = prefill.needed - (prefill.returned if prompt_traces else 0)
    axes = job.mesh.shape
    mesh = {"data": axes.get("data", 1), "model": math.prod(axes.get(axis, 1) for axis in MODEL_AXES)}

    def program(compiled: Compiled, total: int, state: int, traces: int, work: Work, recurrent: int) -> Program:
        weights, text = shard_bytes(job.params), compiled.text
        sizes = weights, state, traces, total - weights - state - traces
        if text is None:
            return Program(*sizes, False, {}, (), work, recurrent)
        return Program(*sizes, True, collectives(text), kernels(text), work, recurrent)

    return Plan(
        request,
        mesh,
        program(decode, decode.needed + decode.returned, batch_state, traces, decode_work(job), batch_recurrent),
        program(
            prefill,
            prefill_total + batch_state + traces + prompt_traces,
            batch_state + group_state,
            traces + prompt_traces,
            prefill_work(job),
            batch_recurrent + group_recurrent,
        ),
        job.group,
        job.chunk,
        precision_name(jnp.dtype(request.dtype)),
    )


def _config(model: str) -> DecoderConfig:
    """Return the decoder behind a name, without reading a tokenizer."""
    if model == DEMO or Path(model).is_dir() or is_gguf_file(Path(model)):
        return read_shape(demo_path() if model == DEMO else Path(model), model)
    return open_random_model(model, 0).config
