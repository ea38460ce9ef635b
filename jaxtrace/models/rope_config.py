"""Rotary position embeddings as data: base, rotated part of a head, and scaling of the wavelengths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearScaling:
    """Stretches every wavelength by `factor` (Gemma 3's full-attention layers)."""

    factor: float


@dataclass(frozen=True)
class ProportionalScaling:
    """Rotates the pairs of the highest `fraction` of the frequencies, stretched by `factor`; the others stay unrotated.

    A pair is still (i, i + H/2) of the whole head, other than with `Rope.fraction` (Gemma 4's full-attention layers).
    """

    fraction: float
    factor: float = 1.0


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's frequency scaling: low frequencies are divided by `factor`, high ones kept, others interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023): like Llama 3's scaling, with a ramp over dimensions, and longer queries and keys.

    Attributes:
      factor: divisor of the low frequencies.
      original_context: context before the scaling, in tokens.
      attention_factor: factor on cosines and sines.
      beta_fast: number of turns over the original context above which a frequency is kept.
      beta_slow: number of turns over the original context below which a frequency is divided by `factor`.
      truncate: True to round the ends of the ramp outwards to whole dimensions.
    """

    factor: float
    original_context: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True)
class LongRopeScaling:
    """LongRoPE (Ding et al. 2024): divisors of the frequencies, others for rows beyond the original context.

    Attributes:
      short_factors: divisor of each frequency in rows of up to `original_context` tokens.
      long_factors: divisor of each frequency in longer rows.
      original_context: context before the scaling, in tokens.
      attention_factor: factor on cosines and sines.
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_context: int
    attention_factor: float


@dataclass(frozen=True)
class DynamicScaling:
    """Dynamic NTK scaling: in a row of n tokens beyond the original context c, the base grows with n.

    The base is theta · (factor · n / c − (factor − 1)) ^ (R / (R − 2)), where R dimensions are rotated.
    """

    factor: float
    original_context: int


RopeScaling = LinearScaling | ProportionalScaling | Llama3Scaling | YarnScaling | LongRopeScaling | DynamicScaling


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding.

    Attributes:
      theta: base of the wavelengths.
      scaling: scaling of the wavelengths, or None.
      fraction: fraction of a head's dimensions that are rotated, the first ones; the others keep their values.
    """

    theta: float = 10_000.0
    scaling: RopeScaling | None = None
    fraction: float = 1.0

    @property
    def by_length(self) -> bool:
        """True if the angle of a position depends on the row's length."""
        return isinstance(self.scaling, LongRopeScaling | DynamicScaling)


DEFAULT_ROPE = Rope()
