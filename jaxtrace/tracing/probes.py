"""What to record: a frozen choice of metric groups, static under jit."""

from __future__ import annotations

from dataclasses import dataclass, fields

from jaxtrace.errors import ConfigError
from jaxtrace.tracing.schema import GROUPS, METRICS

DEFAULT_ALPHAS = (0.5, 2.0, 5.0)
LEAST_ALPHA = 0.01  # below it, e^{αu} of entries that are cut as absent is not 0 any more


@dataclass(frozen=True)
class Probes:
    """Groups of metrics. What is not asked for is not computed.

    Attributes:
      output: entropy, varentropy, Rényi entropies, top-1 and gap of the next-token distribution.
      attention: entropy, varentropy, sink mass of every head's attention.
      dispersion: how differently the heads of a layer look.
      lens: entropy, varentropy, top-1 and KL of every layer's prediction.
      hidden: norms and movements of the residual stream.
      alphas: orders of the Rényi entropies (with `output`).
    """

    output: bool = True
    attention: bool = True
    dispersion: bool = True
    lens: bool = True
    hidden: bool = True
    alphas: tuple[float, ...] = DEFAULT_ALPHAS

    def __post_init__(self):
        names = [f"{alpha:g}" for alpha in self.alphas]
        if not all(alpha == 0 or alpha >= LEAST_ALPHA for alpha in self.alphas) or len({*names}) < len(names):
            raise ConfigError(
                f"alphas {', '.join(names)}: orders of Rényi entropies are 0 or at least {LEAST_ALPHA}, each once"
            )

    @classmethod
    def all(cls) -> Probes:
        """Every group."""
        return cls()

    @classmethod
    def none(cls) -> Probes:
        """No group: the plain step, which returns tokens and nothing else."""
        return cls.of()

    @classmethod
    def of(cls, *groups: str, alphas: tuple[float, ...] = DEFAULT_ALPHAS) -> Probes:
        """The named groups; "all" and "none" are names too. Raises ConfigError for a name that is no group."""
        if unknown := set(groups) - {*GROUPS, "all", "none"}:
            raise ConfigError(f"no probe group {sorted(unknown)[0]!r}; there are: all, none, {', '.join(GROUPS)}")
        wanted = set(GROUPS) if "all" in groups else set(groups)
        return cls(**{group: group in wanted for group in GROUPS}, alphas=alphas)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the chosen groups."""
        return tuple(f.name for f in fields(self) if f.name != "alphas" and getattr(self, f.name))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics a step returns."""
        return tuple(name for name, metric in METRICS.items() if metric.group in ("", *self.groups))
