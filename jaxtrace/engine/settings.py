"""How prompts are run."""

from __future__ import annotations

import dataclasses

from jaxtrace.engine.samplers import Greedy, Sampler
from jaxtrace.models.interventions import Interventions
from jaxtrace.settings.probes import Probes


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
      interventions: what is left out of the forward pass; None for nothing.
    """

    probes: Probes
    batch_size: int = 16
    max_new_tokens: int = 64
    sampler: Sampler = Greedy()  # noqa: RUF009
    stop_tokens: tuple[int, ...] = ()
    stop_repeats: int = 0
    seed: int = 0
    steps: int = 16
    interventions: Interventions | None = None
