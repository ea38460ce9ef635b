"""Entropix's published thresholds and draw settings as data: which uncertainty calls for which draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import Field

from jaxtrace.engine.measure import StepTrace
from jaxtrace.errors import ConfigError
from jaxtrace.schema import QUADRANTS
from jaxtrace.settings.numbers import Count, Float32
from jaxtrace.settings.sampling import LEAST_TEMPERATURE, LEAST_TOP_P, SamplingSettings
from jaxtrace.settings.validation import StrictModel, set_checked, validated

MOST_CANDIDATES = 1000  # tokens that one step draws
FLOWING, TREADING, EXPLORING, RESAMPLING, ADAPTIVE = range(len(QUADRANTS))

Measure = Literal[
    "entropy", "varentropy", "attention_entropy", "attention_varentropy", "agreement", "interaction", "tempering"
]
Bounds = tuple[tuple[Measure, float], ...]

# Smallest values of draw settings; a formula that falls below them is cut here.
LEAST = {"temperature": LEAST_TEMPERATURE, "top_p": LEAST_TOP_P, "top_k": 1, "min_p": 0}


def _check_numbers(place: str, *numbers: float) -> None:
    """Raise ConfigError for a number that float32 does not hold."""
    for number in numbers:
        validated(_Number, {"number": number}, place)


class _Number(StrictModel):
    number: Float32


class _Ranges(StrictModel):
    base: Float32 = Field(gt=1)
    candidates: Count = Field(le=MOST_CANDIDATES)


@dataclasses.dataclass(frozen=True)
class Region:
    """An open region of measures; without bounds it contains every point.

    Attributes:
      above: (measure, bound) pairs; each measure must be strictly above its bound.
      below: (measure, bound) pairs; each measure must be strictly below its bound.
    """

    above: Bounds = ()
    below: Bounds = ()

    def __post_init__(self) -> None:
        _check_numbers("region", *(bound for _, bound in self.above + self.below))


@dataclasses.dataclass(frozen=True)
class Formula:
    """A draw setting: constant + Σ weight · measure, truncated to an integer if `truncated`, clipped to [low, high]."""

    constant: float
    weights: Bounds = ()
    low: float = -math.inf
    high: float = math.inf
    truncated: bool = False

    def __post_init__(self) -> None:
        weights = [weight for _, weight in self.weights]
        _check_numbers("formula", *weights, *[self.constant] * bool(weights))  # `DrawSettings` checks a lone constant
        if not self.low <= self.high:
            raise ConfigError(f"formula: low is {self.low} and high is {self.high}; low must not be above high")

    @property
    def clipped_constant(self) -> float:
        """The constant within [low, high]: the value of a formula without weights."""
        return min(max(self.constant, self.low), self.high)

    def __call__(self, measures: Mapping[Measure, Float[Array, " B"]]) -> Float[Array, " B"]:
        total = jnp.full_like(measures["entropy"], self.constant)
        for name, weight in self.weights:
            total += weight * measures[name]
        return jnp.clip(jnp.trunc(total) if self.truncated else total, self.low, self.high)


@dataclasses.dataclass(frozen=True)
class DrawSettings:
    """Settings of a draw; temperature, min-p, top-k and top-p apply in this order.

    Raises:
      ConfigError: a constant formula is out of the range of the sampler 'sample'.
    """

    temperature: Formula
    top_p: Formula
    top_k: Formula
    min_p: Formula

    def __post_init__(self) -> None:
        constants = {name: formula.clipped_constant for name, formula in vars(self).items() if not formula.weights}
        constants.pop("top_k", None)  # any number: it is rounded at the draw
        validated(SamplingSettings, constants, "draw settings")


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """A version of entropix's rule.

    Attributes:
      base: base of the logarithms for entropies; regions and formulas get them in this unit, varentropies in its
        square.
      regions: regions of flowing, treading, exploring and resampling. The first that contains the measures applies;
        adaptive applies if none does.
      draws: settings of treading (without a pause token), exploring, resampling and adaptive.
      candidates: number of tokens that adaptive draws; it takes the one that the model finds most likely.
    """

    base: float
    regions: tuple[Region, Region, Region, Region]
    draws: tuple[DrawSettings, DrawSettings, DrawSettings, DrawSettings]
    candidates: int = 5

    def __post_init__(self) -> None:
        set_checked(self, _Ranges, "thresholds")

    def __repr__(self) -> str:
        return next((name.upper() for name, table in TABLES.items() if table == self), f"Thresholds({vars(self)})")

    def uses(self, measure: Measure) -> bool:
        """Return True if a region or a formula reads the measure."""
        bounds = [region.above + region.below for region in self.regions]
        weights = [formula.weights for draw in self.draws for formula in vars(draw).values()]
        return any(name == measure for pairs in bounds + weights for name, _ in pairs)


def choose_quadrant(
    regions: tuple[Region, Region, Region, Region], measures: Mapping[Measure, Float[Array, " B"]]
) -> Int[Array, " B"]:
    """Return the index of the first region that contains each row's measures; `ADAPTIVE` if none does."""
    chosen = jnp.full(measures["entropy"].shape, ADAPTIVE, jnp.int32)
    for number in reversed(range(len(regions))):
        holds = jnp.ones(chosen.shape, bool)
        for name, bound in regions[number].above:
            holds &= measures[name] > bound
        for name, bound in regions[number].below:
            holds &= measures[name] < bound
        chosen = jnp.where(holds, number, chosen)
    return chosen


def measures_of(metrics: StepTrace, base: float) -> dict[Measure, Float[Array, " B"]]:
    """Compute the measures that regions and formulas read.

    Attention measures are means over heads and over the layers that have attention weights at the step.

    - entropy, varentropy, attention_entropy, attention_varentropy: the step's metrics, in logarithms of `base`.
    - agreement: 1 − head_jsd / ln(heads), from 0 (every head looks elsewhere) to 1; absent without head_jsd.
    - interaction: √attention_varentropy in nats, the spread of the scores under their own softmax.
    - tempering: √((1.2 H + 2) / (H + 1e-6)) with the entropy H in nats; the server version's temperature factor.
    """
    assert metrics.entropy is not None and metrics.varentropy is not None
    unit = math.log(base)
    measures: dict[Measure, Array] = {
        "entropy": metrics.entropy / unit,
        "varentropy": metrics.varentropy / unit**2,
        "tempering": jnp.sqrt((1.2 * metrics.entropy + 2) / (metrics.entropy + 1e-6)),
    }
    if metrics.attention_entropy is not None and metrics.attention_varentropy is not None:
        heads = metrics.attention_entropy.shape[-1]
        measures |= {
            "attention_entropy": jnp.nanmean(metrics.attention_entropy, axis=(1, 2)) / unit,
            "attention_varentropy": jnp.nanmean(metrics.attention_varentropy, axis=(1, 2)) / unit**2,
            "interaction": jnp.nanmean(jnp.sqrt(jnp.maximum(metrics.attention_varentropy, 0)), axis=(1, 2)),
        }
        if metrics.head_jsd is not None:
            measures["agreement"] = 1 - jnp.nanmean(metrics.head_jsd, axis=1) / math.log(max(heads, 2))
    return measures


def _times(scale: float, constant: float, low: float = -math.inf, high: float = math.inf, **weights: float) -> Formula:
    bounds: Bounds = tuple((name, scale * weight) for name, weight in weights.items())  # pyright: ignore
    return Formula(scale * constant, bounds, low, high)


_UNCERTAIN = {"entropy": 1.0, "varentropy": 1.0}

CLASSIC_BASE = DrawSettings(_times(0.666, 1.0), Formula(0.9), Formula(27), Formula(0.03))
# Commit e55e9a3 with its errors corrected. Resampling's temperature is at most 2, as in later versions; the commit made
# it at least 2.
CLASSIC = Thresholds(
    base=2,
    regions=(
        Region(below=(("entropy", 0.1), ("varentropy", 0.1))),
        Region(above=(("entropy", 5.0),), below=(("varentropy", 0.1),)),
        Region(above=(("varentropy", 5.0),), below=(("entropy", 5.0),)),
        Region(above=(("entropy", 3.0), ("varentropy", 5.0))),
    ),
    draws=(
        dataclasses.replace(CLASSIC_BASE, temperature=_times(0.666, 1.3, high=1.5, attention_entropy=0.2)),
        dataclasses.replace(
            CLASSIC_BASE,
            temperature=_times(0.666, 1.2, high=1.5, interaction=0.3),
            top_k=dataclasses.replace(_times(27, 1.5, low=5, agreement=-0.5), truncated=True),
        ),
        dataclasses.replace(
            CLASSIC_BASE,
            temperature=_times(0.666, 2.0, high=2.0, attention_varentropy=0.5),
            top_p=_times(1, 0.9, low=0.5, attention_entropy=-0.2),
        ),
        DrawSettings(
            temperature=_times(
                0.666, 1.0, entropy=0.3, varentropy=0.3, attention_entropy=0.2, attention_varentropy=0.2, agreement=-0.2
            ),
            top_p=_times(0.9, 1.0, low=0.1, high=1.0, attention_varentropy=0.1),
            top_k=_times(27, 1.0, low=1, high=100, interaction=0.3, agreement=-0.2),
            min_p=_times(0.03, 1.0, low=0.01, high=0.5, entropy=-0.5, varentropy=-0.5),
        ),
    ),
)

SERVER_BASE = DrawSettings(Formula(0.8), Formula(0.9), Formula(40), Formula(0.05))
# Commit 9d41be6.
SERVER = Thresholds(
    base=2,
    regions=(
        Region(
            below=(("entropy", 0.8), ("varentropy", 0.4), ("attention_entropy", 1.0), ("attention_varentropy", 0.3)),
        ),
        Region(
            above=(("entropy", 2.5),),
            below=(("varentropy", 0.4), ("attention_entropy", 1.0), ("attention_varentropy", 0.3)),
        ),
        Region(
            above=(("varentropy", 1.2), ("attention_varentropy", 0.8)),
            below=(("entropy", 2.5), ("attention_entropy", 1.0)),
        ),
        Region(
            above=(("entropy", 1.7), ("varentropy", 1.2), ("attention_entropy", 2.0), ("attention_varentropy", 0.8))
        ),
    ),
    draws=(
        SERVER_BASE,
        SERVER_BASE,
        dataclasses.replace(
            SERVER_BASE,
            temperature=_times(0.8, 0.3, high=2.0, attention_varentropy=0.25),
            top_p=_times(1, 0.9, low=0.5, attention_entropy=-0.3),
        ),
        dataclasses.replace(
            SERVER_BASE,
            temperature=_times(0.8, 0.0, low=0.1, high=2.0, tempering=1.0),
            min_p=_times(0.05, 1.0, low=0.01, high=0.5, varentropy=-0.2),
        ),
    ),
)

TABLES = {"classic": CLASSIC, "server": SERVER}

# Regions of the Dirichlet sampler (commit 0a7f7bb), in nats.
DSLIDER_REGIONS = (
    Region(below=(("entropy", 0.3), ("varentropy", 1.2))),
    Region(above=(("entropy", 2.5),), below=(("varentropy", 1.2),)),
    Region(above=(("varentropy", 2.5),), below=(("entropy", 2.5),)),
    Region(above=(("entropy", 1.2), ("varentropy", 2.5))),
)
