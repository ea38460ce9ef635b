"""What a sweep will come to: prompts, tokens, bytes and hours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxtrace.checkpoints.huggingface import default_dtype
from jaxtrace.models.config import DecoderConfig
from jaxtrace.parallel.automatic import AUTO
from jaxtrace.parallel.mesh import mesh_sizes
from jaxtrace.planning.cost import lens_flops, parameter_count, step_flops, trace_bytes
from jaxtrace.run import RunConfig
from jaxtrace.sweeping.cells import Cell
from jaxtrace.sweeping.check import Checked, check
from jaxtrace.sweeping.machine import bandwidth, product_rate
from jaxtrace.sweeping.manifest import Manifest
from jaxtrace.traces.location import Location


@dataclass(frozen=True)
class Machine:
    """What hours are counted from.

    Attributes:
      bandwidth: bytes per second that the memory of a device gives.
      flops: operations per second that its matrix products make.
      source: where these two are from, in words.
    """

    bandwidth: float
    flops: float
    source: str

    @classmethod
    def of(cls, gigabytes: float | None, teraflops: float | None) -> Machine:
        """That of given GB/s and TFLOP/s; what is None is measured on the default device, which takes a few seconds."""
        source = "as given" if gigabytes and teraflops else "measured on this machine"
        memory = bandwidth() if gigabytes is None else gigabytes * 1e9
        return cls(memory, product_rate("float32") if teraflops is None else teraflops * 1e12, source)

    def __str__(self) -> str:
        return f"{self.bandwidth / 1e9:.3g} GB/s and {self.flops / 1e12:.3g} TFLOP/s a device ({self.source})"


@dataclass(frozen=True)
class Estimate:
    """What a cell will come to; None where it is not known.

    Attributes:
      cell: the cell.
      prompts: how many.
      tokens: at most, where they are generated; all, where texts are scored.
      recorded: those, and the prompts' positions where they are measured too.
      token_bytes: of the trace of a token, before compression.
      seconds: that it will take.
      measured: whether the seconds come from a cell that is done, and not from the machine's rates.
      unchecked: what could not be checked here, in words.
    """

    cell: Cell
    prompts: int | None
    tokens: int | None
    recorded: int | None
    token_bytes: int | None
    seconds: float | None
    measured: bool
    unchecked: tuple[str, ...]

    @property
    def bytes(self) -> int | None:
        """Of its trace, before compression."""
        return None if self.recorded is None or self.token_bytes is None else self.recorded * self.token_bytes


def estimate_sweep(cells: Sequence[Cell], root: str | Path, machine: Machine) -> list[Estimate]:
    """Checks what of a sweep can be checked without the hub, and says what every cell will come to.

    The time of a generated step is that of reading the weights once, or that of the products of the batch, lens
    included, whichever is longer; that of given text is its products'. Attention, sampling and writing are left out, so
    it is the least that the machine can do for as many tokens. Where a cell of the same model and probes is done, its
    tokens/s are taken instead.

    Args:
      cells: from `read_sweep`.
      root: of the dataset; it need not be there.
      machine: what hours are counted from.

    Raises:
      JaxtraceError: what is here is wrong; see `open_sweep`.
    """
    manifest = Manifest(Location.of(root))
    checked = check(cells, offline=True)
    records = [(some.cell, manifest.of(some.cell)) for some in checked]
    rates = {_kind(cell): record.tokens_per_second for cell, record in records if record.state == "complete"}
    return [_estimate(some, rates.get(_kind(some.cell)), machine) for some in checked]


def _kind(cell: Cell) -> tuple[object, ...]:
    """Cells of one kind trace about as many tokens a second."""
    config = cell.config
    return cell.model, config.recorded, config.score, config.batch_size, config.mesh


def _estimate(some: Checked, rate: float | None, machine: Machine) -> Estimate:
    config, run, tokens, seconds = some.config, some.cell.config, None, None
    if run.score:
        tokens = some.fed
    elif some.prompts is not None:
        tokens = some.prompts * run.max_new_tokens
    if tokens is not None and rate is not None:
        seconds = tokens / rate
    elif tokens is not None and config is not None:
        seconds = _seconds(config, run, some.prompts or 1, tokens, some.fed or 0, machine)
    recorded, size = tokens, None
    if run.prompt_positions and not run.score:
        prompts, fed = some.prompts, some.fed
        # A prompt's last position draws its first token.
        recorded = None if tokens is None or prompts is None or fed is None else tokens + fed - prompts
    if config is not None:
        size = sum(trace_bytes(config, run.recorded, precision=run.precision).values())
    return Estimate(some.cell, some.prompts, tokens, recorded, size, seconds, rate is not None, some.unchecked)


def _seconds(config: DecoderConfig, run: RunConfig, prompts: int, tokens: int, fed: int, machine: Machine) -> float:
    devices = _devices(run.mesh)
    probes = run.recorded
    flops = step_flops(config) + lens_flops(config, probes) * probes.lens
    if run.score:
        return tokens * flops / (devices * machine.flops)
    batch = min(run.batch_size, prompts)
    weights = parameter_count(config) * np.dtype(default_dtype()).itemsize
    step = max(weights / machine.bandwidth, batch * flops / machine.flops) / devices
    return math.ceil(tokens / batch) * step + fed * step_flops(config) / (devices * machine.flops)


def _devices(mesh: str | None) -> int:
    """How many a run is said to take; "auto" takes those that are here."""
    if mesh == AUTO:
        return jax.device_count()
    return 1 if mesh is None else math.prod(mesh_sizes(mesh).values())
