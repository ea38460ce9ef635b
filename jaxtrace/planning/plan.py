"""Whether a traced run fits a slice of accelerators, and what bounds its speed there, with none of them at hand."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.huggingface import read_config
from jaxtrace.errors import ConfigError
from jaxtrace.model import DEMO, open_random_model
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.on_mesh import PARTS
from jaxtrace.parallel.automatic import automatic_mesh
from jaxtrace.parallel.mesh import make_mesh, mesh_sizes, written
from jaxtrace.parallel.mesh import mesh as mesh_of
from jaxtrace.planning.hlo import Collective, collectives, kernels
from jaxtrace.planning.program import Compiled, Job, compile_program, shard_bytes
from jaxtrace.planning.topology import Topology, find_topology
from jaxtrace.planning.work import Work, decode_work, prefill_work
from jaxtrace.settings.probes import Probes

CONTEXT = 4096
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Request:
    """What is to be planned.

    Attributes:
      model: as it was named.
      config: of the decoder.
      topology: the slice.
      mesh: sizes that make up its devices, as --mesh takes them; None for the automatic choice.
      dtype: of parameters and caches.
      batch: rows that run together.
      context: positions of each.
      probes: what is measured.
    """

    model: str
    config: DecoderConfig
    topology: Topology
    mesh: str | None
    dtype: str
    batch: int
    context: int
    probes: Probes

    def job(self) -> Job:
        """The run, ready to be compiled; raises ConfigError where the mesh divides neither slice nor model."""
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
                f"mesh {self.mesh!r}: makes {size} devices, and {self.topology.name} has {len(devices)}; "
                "make it as large, or take another topology"
            )
        return make_mesh(self.mesh, devices)


@dataclass(frozen=True)
class Program:
    """One of the programs of a run, on each device.

    Attributes:
      weights: bytes of the parameters, those of an image encoder included.
      state: bytes of the rows' caches and of what else they carry from step to step.
      traces: bytes of the metrics of two calls of decode steps: one is drained to the host while the next one runs; and
        where prompts are measured, of those of all rows.
      temporaries: bytes of everything else: intermediate results, the program, the padding of arrays.
      compiled: whether the compiler made it; of one that it gave up for want of memory, what follows is empty.
      collectives: by kind, of a decode step or of a chunk of prefill.
      kernels: names of the Mosaic kernels in it.
      work: what it moves and multiplies, compiled or not.
    """

    weights: int
    state: int
    traces: int
    temporaries: int
    compiled: bool
    collectives: dict[str, Collective]
    kernels: tuple[str, ...]
    work: Work

    @property
    def total(self) -> int:
        """Bytes of a device's memory while it runs."""
        return self.weights + self.state + self.traces + self.temporaries


@dataclass(frozen=True)
class Plan:
    """A run on a slice.

    Attributes:
      request: what was planned.
      mesh: sizes of the mesh's axes.
      decode: a decode step of all rows.
      prefill: a chunk of the prompts of the rows that are begun together, beside the state of all rows.
      prefill_rows: so many rows,
      prefill_positions: with so many positions each.
    """

    request: Request
    mesh: dict[str, int]
    decode: Program
    prefill: Program
    prefill_rows: int
    prefill_positions: int

    @property
    def headroom(self) -> int:
        """Bytes of a device's memory that the larger program leaves free; below 0 where it does not fit."""
        return self.request.topology.usable - max(self.decode.total, self.prefill.total)

    @property
    def fits(self) -> bool:
        """Whether both programs fit."""
        return self.headroom >= 0 and self.decode.compiled and self.prefill.compiled

    def seconds(self, work: Work) -> tuple[float, float] | None:
        """Least times for the bytes of some work, and for its operations in bfloat16; None without published rates."""
        chip = self.request.topology.chip
        if chip.bandwidth is None or chip.flops is None:
            return None
        return work.all_bytes / (chip.bandwidth / chip.devices), work.all_flops / (chip.flops / chip.devices)

    def as_dict(self) -> dict[str, Any]:
        """Its figures as plain data, for JSON; bytes and operations are those of one device."""
        request, topology = self.request, self.request.topology
        found: dict[str, Any] = {
            "model": request.model,
            "topology": topology.name,
            "chips": topology.chips,
            "devices": topology.chips * topology.chip.devices,
            "mesh": written(self.mesh),
            "dtype": request.dtype,
            "batch": request.batch,
            "context": request.context,
            "probes": list(request.probes.groups),
            "usable": topology.usable,
            "headroom": self.headroom,
            "fits": self.fits,
        }
        for name, program in (("decode", self.decode), ("prefill", self.prefill)):
            times = self.seconds(program.work) or (None, None)
            found[name] = dataclasses.asdict(program) | {"total": program.total}
            found[name] |= dict(zip(("bandwidth_seconds", "compute_seconds"), times, strict=True))
        return found


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
    """Compiles a run's programs for a slice of accelerators that need not be there. No weights are read.

    A model that sees images has one of most tiles in each row: its encoder's weights count, and the keys and values of
    the image; the encoder's own intermediate results do not.

    Args:
      model: a name that `jaxtrace models` lists, "demo", or a directory with a config.json.
      topology: a kind of chip and how many of them, such as "v5e-16"; or "cpu-8", for CPU devices of this process.
      batch: rows that run together.
      context: positions of each, prompt and new tokens; None for 4096, or as many as the model was made for.
      probes: what is measured; None for all.
      dtype: of parameters and caches; by default bfloat16 on TPUs and float32 on CPUs.
      mesh: sizes that make up the slice's devices, such as "data=2,model=8"; None for the automatic choice.

    Raises:
      ConfigError: there is no such topology, the mesh divides neither it nor the model, or a number is out of range.
      CheckpointError: there is no such model.
    """
    config, where = _config(model), find_topology(topology)
    dtype = dtype or ("float32" if where.platform == "cpu" else "bfloat16")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: there are {', '.join(DTYPES)}")
    probes = probes or Probes.all()
    probes.check(config)
    context = min(CONTEXT, config.context) if context is None else context
    if batch < 1 or not 1 <= context <= config.context:
        raise ConfigError(f"batch={batch}, context={context}: give 1 row or more, of 1 to {config.context} positions")
    return planned(Request(model, config, where, mesh, dtype, batch, context, probes))


def planned(request: Request) -> Plan:
    """The plan of a request, whether it fits or not; raises ConfigError."""
    job = request.job()
    lowered = job.lowered_decode(), job.lowered_prefill()
    with ThreadPoolExecutor() as pool:
        decode, prefill = pool.map(compile_program, lowered)
    waiting, begun = shard_bytes(job.state(job.batch)), shard_bytes(job.state(job.group))
    traces = 2 * decode.returned
    measured = job.prefills * prefill.returned if job.probes.prompt_positions else 0
    rest = prefill.needed - (prefill.returned if measured else 0)
    sizes = {"data": job.mesh.shape.get("data", 1), "model": math.prod(job.mesh.shape.get(axis, 1) for axis in PARTS)}

    def program(compiled: Compiled, total: int, state: int, traces: int, work: Work) -> Program:
        """With so many bytes in all, of them those of states and of traces."""
        weights, text = shard_bytes(job.params), compiled.text
        known = weights, state, traces, total - weights - state - traces
        if text is None:
            return Program(*known, False, {}, (), work)
        return Program(*known, True, collectives(text), kernels(text), work)

    return Plan(
        request,
        sizes,
        program(decode, decode.needed + decode.returned, waiting, traces, decode_work(job)),
        program(prefill, rest + waiting + traces + measured, waiting + begun, traces + measured, prefill_work(job)),
        job.group,
        job.chunk,
    )


def _config(model: str) -> DecoderConfig:
    """The decoder behind a name; no tokenizer is read."""
    if model == DEMO or Path(model).is_dir():
        return read_config(demo_path() if model == DEMO else Path(model), model)[1]
    return open_random_model(model, 0).config
