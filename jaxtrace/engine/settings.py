"""Settings of the engine: how rows are run, with every choice resolved."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import BeforeValidator, Field

from jaxtrace.engine.samplers import Greedy, Sampler
from jaxtrace.models.interventions import Interventions
from jaxtrace.prompts import token_ids
from jaxtrace.settings.numbers import Count
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.sampling import DecodingSettings, PrecisionName
from jaxtrace.settings.validation import set_checked

MOST_STEPS = 4096  # whose traces one call keeps on the device


class EngineRanges(DecodingSettings):
    """Ranges of the numbers of `Settings`."""

    steps: Count = Field(default=16, le=MOST_STEPS)
    stop_tokens: Annotated[tuple[int, ...], BeforeValidator(token_ids)] = ()


DEFAULTS = EngineRanges()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the engine.

    Attributes:
      probes: metrics to record.
      batch_size: number of rows run at once.
      deterministic: True runs rows in blocks of one size, so that a row's bits do not depend on its neighbours.
      matmul_precision: precision of float32 products; "auto" leaves it to JAX's setting, or else is "highest".
      max_new_tokens: largest number of tokens drawn for a row (generate).
      sampler: sampler that draws them.
      stop_tokens: ids that end a row.
      stop_repeats: number of identical tokens in a row that end it; 0 never ends it.
      stop: strings that end a row.
      seed: seed of the rows' random keys; a row's key is folded with its index, whatever its batch.
      steps: decode steps per call of the device.
      interventions: ablation of the forward pass; None for none.

    Raises:
      ConfigError: a number is out of range, or a stop token is no token id.
    """

    probes: Probes
    batch_size: int = DEFAULTS.batch_size
    deterministic: bool = DEFAULTS.deterministic
    matmul_precision: PrecisionName = DEFAULTS.matmul_precision
    max_new_tokens: int = DEFAULTS.max_new_tokens
    sampler: Sampler = Greedy()  # noqa: RUF009
    stop_tokens: tuple[int, ...] = DEFAULTS.stop_tokens
    stop_repeats: int = DEFAULTS.stop_repeats
    stop: tuple[str, ...] = DEFAULTS.stop
    seed: int = DEFAULTS.seed
    steps: int = DEFAULTS.steps
    interventions: Interventions | None = None

    def __post_init__(self) -> None:
        set_checked(self, EngineRanges, "settings")
