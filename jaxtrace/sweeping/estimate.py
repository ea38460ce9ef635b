"""Estimates for a sweep: prompts, tokens, bytes and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxtrace.checkpoints.huggingface import default_dtype
from jaxtrace.models.config import DecoderConfig
from jaxtrace.planning.cost import lens_flops, parameter_count, step_flops, trace_bytes
from jaxtrace.planning.machine import bandwidth, product_rate
from jaxtrace.run import RunConfig
from jaxtrace.settings.mesh import mesh_sizes
from jaxtrace.settings.run import AUTO
from jaxtrace.sweeping.cells import Cell
from jaxtrace.sweeping.check import CheckedCell, check
from jaxtrace.sweeping.manifest import Manifest
from jaxtrace.traces.location import Location


@dataclass(frozen=True)
class Machine:
    """Rates of a device, from which time is estimated.

    Attributes:
      bandwidth: bytes per second of its memory.
      flops: operations per second of its matrix products.
      source: origin of these two, in words.
    """

    bandwidth: float
    flops: float
    source: str

    @classmethod
    def of(cls, gigabytes: float | None, teraflops: float | None) -> Machine:
        """Return the rates from GB/s and TFLOP/s; a None is measured on the default device in a few seconds."""
        source = "as given" if gigabytes and teraflops else "measured on this machine"
        memory = bandwidth() if gigabytes is None else gigabytes * 1e9
        return cls(memory, product_rate("float32") if teraflops is None else teraflops * 1e12, source)

    def __str__(self) -> str:
        return f"{self.bandwidth / 1e9:.3g} GB/s and {self.flops / 1e12:.3g} TFLOP/s a device ({self.source})"


@dataclass(frozen=True)
class CellEstimate:
    """Size and time of a cell; None for what is unknown.

    Attributes:
      tokens: number of tokens; an upper bound for generated text.
      recorded: number of recorded positions: `tokens`, and the prompts' positions if they are measured.
      token_bytes: bytes of a token's trace before compression.
      measured: True if the time comes from a complete cell, False if it comes from the machine's rates.
      unchecked: descriptions of what could not be checked here.
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
        """Bytes of the cell's trace before compression."""
        return None if self.recorded is None or self.token_bytes is None else self.recorded * self.token_bytes


def estimate_sweep(cells: Sequence[Cell], root: str | Path, machine: Machine) -> list[CellEstimate]:
    """Check a sweep as far as possible without the hub, and estimate every cell.

    The time of a generated step is the longer of reading the weights once and of the batch's matrix products, lens
    included; the time of given text is that of its products. Attention, sampling and writing are excluded, so the
    estimate is a lower bound. If a cell of the same model and probes is complete, its tokens/s are used instead.

    Args:
      root: directory or URL of the dataset; it may be missing.

    Raises:
      JaxtraceError: something that is here is wrong; see `open_sweep`.
    """
    manifest = Manifest(Location.of(root))
    checked = check(cells, offline=True)
    records = [(cell, manifest.of(cell)) for cell in cells]
    rates = {_kind(cell): record.tokens_per_second for cell, record in records if record.state == "complete"}
    return [_estimate(each, rates.get(_kind(each.cell)), machine) for each in checked]


def _kind(cell: Cell) -> tuple[object, ...]:
    """Return the settings that a cell's tokens/s depend on most."""
    config = cell.config
    return cell.model, config.recorded, config.score, config.batch_size, config.dtype, config.mesh


def _estimate(checked: CheckedCell, rate: float | None, machine: Machine) -> CellEstimate:
    config, run, prompts, prompt_tokens = checked.config, checked.cell.config, checked.prompts, checked.prompt_tokens
    tokens = seconds = None
    if run.score:
        tokens = prompt_tokens
    elif prompts is not None:
        tokens = prompts * run.max_new_tokens
    if tokens is not None and rate is not None:
        seconds = tokens / rate
    elif tokens is not None and config is not None:
        seconds = _seconds(config, run, prompts or 1, tokens, prompt_tokens or 0, machine)
    recorded, size = tokens, None
    if run.prompt_positions and not run.score:
        recorded = None
        if tokens is not None and prompts is not None and prompt_tokens is not None:
            recorded = tokens + prompt_tokens - prompts  # a prompt's last position draws its first token
    if config is not None:
        size = sum(trace_bytes(config, run.recorded, precision=run.precision).values())
    return CellEstimate(checked.cell, prompts, tokens, recorded, size, seconds, rate is not None, checked.unchecked)


def _seconds(
    config: DecoderConfig, run: RunConfig, prompts: int, tokens: int, prompt_tokens: int, machine: Machine
) -> float:
    devices = _devices(run.mesh)
    probes = run.recorded
    flops = step_flops(config) + lens_flops(config, probes)
    if run.score:
        return tokens * flops / (devices * machine.flops)
    batch = min(run.batch_size, prompts)
    weights = parameter_count(config) * np.dtype(run.dtype or default_dtype()).itemsize
    step = max(weights / machine.bandwidth, batch * flops / machine.flops) / devices
    return math.ceil(tokens / batch) * step + prompt_tokens * step_flops(config) / (devices * machine.flops)


def _devices(mesh: str | None) -> int:
    """Return the number of devices of a mesh; "auto" uses the devices here."""
    if mesh == AUTO:
        return jax.device_count()
    return 1 if mesh is None else math.prod(mesh_sizes(mesh).values())
