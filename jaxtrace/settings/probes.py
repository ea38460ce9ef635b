"""What to record: a frozen choice of metric groups, layers and raw material, static under jit."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.schema import GROUPS, QUANTITIES, chosen_layers

DEFAULT_ALPHAS = (0.5, 2.0, 5.0)
LEAST_ALPHA = 0.01  # below it, e^{αu} of entries that are cut as absent is not 0 any more


@dataclass(frozen=True)
class Probes:
    """Groups of metrics, and raw material. What is not asked for is not computed.

    Attributes:
      output: entropy, varentropy, Rényi entropies, top-1 and gap of the next-token distribution.
      attention: entropy, varentropy, sink mass of every head's attention.
      dispersion: how differently the heads of a layer look.
      lens: entropy, varentropy, top-1 and KL of every layer's prediction.
      hidden: norms and movements of the residual stream.
      alphas: orders of the Rényi entropies (with `output` and `lens_renyi`).
      layer_stride: metrics of layers are of every so many-th layer, the last one among them.
      residuals: layers whose residual stream is given out, 0 the embedding.
      top_tokens: so many of the most likely tokens are given out, with their log-probabilities.
      attention_rows: (layer from 1, query head from 0) pairs whose attention weights are given out.
      prompt_positions: where texts are continued, the positions of the prompt before its last are measured too.
      lens_renyi: Rényi entropies of every layer's prediction (with `lens`), which is unembedded a second time for them.
    """

    output: bool = True
    attention: bool = True
    dispersion: bool = True
    lens: bool = True
    hidden: bool = True
    alphas: tuple[float, ...] = DEFAULT_ALPHAS
    layer_stride: int = 1
    residuals: tuple[int, ...] = ()
    top_tokens: int = 0
    attention_rows: tuple[tuple[int, int], ...] = ()
    prompt_positions: bool = False
    lens_renyi: bool = False

    def __post_init__(self):
        names = [f"{alpha:g}" for alpha in self.alphas]
        if not all(alpha == 0 or alpha >= LEAST_ALPHA for alpha in self.alphas) or len({*names}) < len(names):
            raise ConfigError(
                f"alphas {', '.join(names)}: orders of Rényi entropies are 0 or at least {LEAST_ALPHA}, each once"
            )
        if self.layer_stride < 1:
            raise ConfigError(f"layer_stride {self.layer_stride}: give 1 for every layer, 2 for every second, …")
        if self.top_tokens < 0:
            raise ConfigError(
                f"top_tokens {self.top_tokens}: give how many of the likeliest tokens to keep, 0 for none"
            )
        if self.lens_renyi and not self.lens:
            raise ConfigError("lens_renyi: is of the lens; record the group lens too, or leave it out")
        for name in ("residuals", "attention_rows"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(f"{name} {getattr(self, name)}: name each once")

    @classmethod
    def all(cls) -> Probes:
        """Every group."""
        return cls()

    @classmethod
    def none(cls) -> Probes:
        """No group: the plain step, which returns tokens and nothing else."""
        return cls.of()

    @classmethod
    def of(cls, *groups: str, **options: Any) -> Probes:
        """The named groups; "all" and "none" are names too.

        Args:
          groups: their names.
          options: the other fields.

        Raises:
          ConfigError: a name that is no group, or an option out of range.
        """
        if unknown := set(groups) - {*GROUPS, "all", "none"}:
            raise ConfigError(f"no probe group {sorted(unknown)[0]!r}; there are: all, none, {', '.join(GROUPS)}")
        wanted = set(GROUPS) if "all" in groups else set(groups)
        return cls(**{group: group in wanted for group in GROUPS}, **options)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the chosen groups."""
        return tuple(group for group in GROUPS if getattr(self, group))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what a step returns, but for what its sampler adds."""
        return tuple(name for name, of in QUANTITIES.items() if not of.group or getattr(self, of.group, False))

    def layers(self, config: DecoderConfig) -> tuple[int, ...]:
        """The layers, from 1, whose metrics are recorded."""
        return chosen_layers(config.layers, self.layer_stride)

    def carried(self, config: DecoderConfig) -> tuple[int, ...]:
        """Layers whose residual stream one step keeps for the next."""
        return (0, *self.layers(config)) if self.hidden else ()

    def stream(self, config: DecoderConfig) -> tuple[int, ...]:
        """Layers whose residual stream a step needs, ascending."""
        layers = {*self.carried(config), *self.residuals, *(layer - 1 for layer, _ in self.attention_rows)}
        layers |= set(self.layers(config)) if self.lens else set()
        layers |= {layer - 1 for layer in self.layers(config)} if self.hidden else set()
        return tuple(sorted(layers))

    def check(self, config: DecoderConfig) -> None:
        """Raises ConfigError for a layer, head or number of tokens that a decoder does not have."""
        for layer in self.residuals:
            if not 0 <= layer <= config.layers:
                raise ConfigError(f"residuals: no layer {layer}; there are 0 (the embedding) to {config.layers}")
        for layer, head in self.attention_rows:
            if not (1 <= layer <= config.layers and 0 <= head < config.heads):
                raise ConfigError(
                    f"attention_rows: no head {head} of layer {layer}; there are layers 1 to {config.layers} "
                    f"and heads 0 to {config.heads - 1}"
                )
            if config.kind(layer - 1).cross_attention:
                raise ConfigError(f"attention_rows: layer {layer} looks at images, not at positions; leave it out")
        if self.top_tokens > config.vocab:
            raise ConfigError(f"top_tokens: {self.top_tokens} of a vocabulary of {config.vocab}; give fewer")


OPTIONS = tuple(field.name for field in fields(Probes) if field.name not in GROUPS)  # what they say beside their groups
