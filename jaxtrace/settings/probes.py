"""Probes: a frozen choice of the metric groups, layers and raw material to record, static under jit."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

from jaxtrace.errors import ConfigError
from jaxtrace.schema import GROUPS, QUANTITIES, STEP_METRICS, chosen_layers, lens_layers, recorded_layers
from jaxtrace.settings.groups import RECORD
from jaxtrace.settings.numbers import Count, FloatOrInfinity, Natural
from jaxtrace.settings.validation import COMMA_SEPARATED, PAIRS, StrictModel, did_you_mean, set_checked

LEAST_ALPHA = 0.01  # below it, e^{αu} of masked entries is no longer 0
LARGEST_ALPHA = 1e6  # far below it, float32 has the min-entropy, the order ∞


def _check_alphas(alphas: tuple[float, ...]) -> tuple[float, ...]:
    """Check orders of Rényi entropies; near 1, their formula is a difference of equal numbers in float32."""
    exact = (0, 1, math.inf)
    in_range = all(
        alpha in exact or (LEAST_ALPHA <= alpha <= LARGEST_ALPHA and abs(alpha - 1) >= LEAST_ALPHA) for alpha in alphas
    )
    if not in_range or len({f"{alpha:g}" for alpha in alphas}) < len(alphas):
        raise ValueError(
            f"each must be 0, 1, inf, or from {LEAST_ALPHA} to {LARGEST_ALPHA:g} and at least {LEAST_ALPHA} from 1, "
            "and given once"
        )
    return alphas


def _check_step_metrics(names: tuple[str, ...]) -> tuple[str, ...]:
    known = STEP_METRICS.names
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"no plug-in has the metric {unknown[0]!r}{did_you_mean(unknown[0], known)}"
            + (f"there are: {', '.join(known)}" if known else "none is installed or imported")
        )
    if len({*names}) < len(names):
        raise ValueError("name each metric once")
    return names


class RecordSettings(StrictModel):
    """Metrics and raw material that a run records."""

    probes: Annotated[tuple[str, ...], COMMA_SEPARATED] = Field(
        default=("all",),
        description=f"Groups of metrics, comma-separated: {', '.join(GROUPS)}, all, none.",
        json_schema_extra=RECORD,
    )
    alphas: Annotated[tuple[FloatOrInfinity, ...], COMMA_SEPARATED, AfterValidator(_check_alphas)] = Field(
        default=(0.5, 2.0, 5.0), description="Orders of the Rényi entropies, comma-separated.", json_schema_extra=RECORD
    )
    layer_stride: Count = Field(
        default=1,
        description="Record every n-th layer (the last one is always included).",
        json_schema_extra=RECORD,
    )
    lens_stride: Count | None = Field(
        default=None,
        description="Take the lens at every n-th layer (the last one is always included). Default: layer_stride.",
        json_schema_extra=RECORD,
    )
    lens_layers: Annotated[tuple[Count, ...], COMMA_SEPARATED] = Field(
        default=(),
        description="Layers where the lens is taken, comma-separated (the last one is always included): 10,20.",
        json_schema_extra=RECORD,
    )
    lens_every: Count = Field(
        default=1,
        description="Take the lens at every n-th step, from step 0; the other steps do not compute it.",
        json_schema_extra=RECORD,
    )
    residuals: Annotated[tuple[Natural, ...], COMMA_SEPARATED] = Field(
        default=(),
        description="Layers whose residual stream is stored, comma-separated; 0 is the embedding: 0,8,16.",
        json_schema_extra=RECORD,
    )
    top_tokens: Natural = Field(
        default=0,
        description="Store this many of the most likely next tokens, with their log-probabilities.",
        json_schema_extra=RECORD,
    )
    top_k_mass: Natural = Field(
        default=0,
        description="Record the total probability of this many of the most likely tokens, such as 10.",
        json_schema_extra=RECORD,
    )
    attention_rows: Annotated[tuple[tuple[Count, Natural], ...], PAIRS] = Field(
        default=(),
        description="LAYER:HEAD pairs whose attention weights are stored, comma-separated: 3:0,3:1.",
        json_schema_extra=RECORD,
    )
    prompt_positions: bool = Field(
        default=False,
        description="Record the prompt's own positions too, before its last one.",
        json_schema_extra=RECORD,
    )
    lens_renyi: bool = Field(
        default=False,
        description="Record Rényi entropies of every layer's prediction, which needs a second unembedding.",
        json_schema_extra=RECORD,
    )
    experts: bool = Field(
        default=False,
        description="Store the numbers of the chosen experts, for a model with experts.",
        json_schema_extra=RECORD,
    )
    step_metrics: Annotated[tuple[str, ...], COMMA_SEPARATED, AfterValidator(_check_step_metrics)] = Field(
        default=(), description="Metrics of plug-ins to record, by name, comma-separated.", json_schema_extra=RECORD
    )
    precision: Literal["float32", "float16"] = Field(
        default="float32", description="Precision of stored floats.", json_schema_extra=RECORD
    )


DEFAULTS = RecordSettings()
LENS_OPTIONS = ("lens_stride", "lens_layers", "lens_every", "lens_renyi")  # options of the group lens


class LayerAttention(Protocol):
    """The part of a layer's description that probes need."""

    @property
    def cross_attention(self) -> bool:
        """True if the layer attends to an image."""
        ...

    @property
    def attends_to_text(self) -> bool:
        """True if the layer has attention weights over the positions of the text."""
        ...


class DecoderSizes(Protocol):
    """The part of a decoder's config that probes need; `DecoderConfig` has it."""

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        ...

    @property
    def num_heads(self) -> int:
        """Number of query heads."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary."""
        ...

    @property
    def chosen_experts(self) -> int:
        """Number of experts that a router chooses for each token; 0 for a dense decoder."""
        ...

    def kind(self, layer: int) -> LayerAttention:
        """Return the description of a layer, from 0."""
        ...


@dataclass(frozen=True)
class Probes:
    """Groups of metrics and raw material to record; nothing else is computed.

    Attributes:
      output: entropy, varentropy, Rényi entropies, top-1, gap and distances to uniform of the next-token distribution.
      attention: entropy, varentropy and largest weight of every head's attention, and its weights on position 0, on the
        query's own and previous position and on the prompt.
      dispersion: differences between the attention of a layer's heads.
      lens: entropy, varentropy, top-1 and KL of every layer's prediction.
      hidden: norms and changes of the residual stream.
      router: entropy of every router, and mass of the experts that it chooses; None records them where the decoder has
        experts.
      alphas: orders of the Rényi entropies (with `output` and `lens_renyi`); 0, 1, ∞, or at least 0.01 from 0 and 1.
      layer_stride: distance between recorded layers; the last layer is always recorded.
      lens_stride: distance between the layers where the lens is taken, the last layer included; None for
        `layer_stride`.
      lens_layers: layers, from 1, where the lens is taken, beside the last one; () for every `lens_stride`-th.
      lens_every: distance between the steps where the lens is taken, from step 0; its metrics are missing (NaN, −1) at
        the others, which do not compute it.
      residuals: layers whose residual stream is stored; 0 is the embedding.
      top_tokens: number of most likely tokens to store, with their log-probabilities.
      top_k_mass: number of most likely tokens whose total probability is recorded; 0 records none.
      attention_rows: (layer from 1, query head from 0) pairs whose attention weights are stored.
      prompt_positions: True to also record the prompt's positions before its last one, when texts are continued.
      lens_renyi: True to record Rényi entropies of every layer's prediction (with `lens`), at the cost of a second
        unembedding.
      experts: True to store the numbers of the chosen experts.
      step_metrics: names of metrics of plug-ins, see `jaxtrace.step_metric`.

    Raises:
      ConfigError: a value is out of range.
    """

    output: bool = True
    attention: bool = True
    dispersion: bool = True
    lens: bool = True
    hidden: bool = True
    router: bool | None = None
    alphas: tuple[float, ...] = DEFAULTS.alphas
    layer_stride: int = DEFAULTS.layer_stride
    lens_stride: int | None = DEFAULTS.lens_stride
    lens_layers: tuple[int, ...] = DEFAULTS.lens_layers
    lens_every: int = DEFAULTS.lens_every
    residuals: tuple[int, ...] = DEFAULTS.residuals
    top_tokens: int = DEFAULTS.top_tokens
    top_k_mass: int = DEFAULTS.top_k_mass
    attention_rows: tuple[tuple[int, int], ...] = DEFAULTS.attention_rows
    prompt_positions: bool = DEFAULTS.prompt_positions
    lens_renyi: bool = DEFAULTS.lens_renyi
    experts: bool = DEFAULTS.experts
    step_metrics: tuple[str, ...] = DEFAULTS.step_metrics

    def __post_init__(self) -> None:
        set_checked(self, RecordSettings, "settings")
        for name in LENS_OPTIONS:
            if getattr(self, name) != getattr(DEFAULTS, name) and not self.lens:
                raise ConfigError(f"{name} needs the group lens; record it too, or drop {name}")
        if self.lens_stride is not None and self.lens_layers:
            raise ConfigError(
                f"lens_stride is {self.lens_stride}, and lens_layers names the layers of the lens; drop one of the two"
            )
        for name in ("lens_layers", "residuals", "attention_rows"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}; name each entry once")

    @classmethod
    def all(cls) -> Probes:
        """Return probes of every group that a decoder has."""
        return cls()

    @classmethod
    def none(cls) -> Probes:
        """Return probes of no group: the plain step, which returns tokens only."""
        return cls.of()

    @classmethod
    def of(cls, *groups: str, **options: Any) -> Probes:
        """Return probes of the named groups.

        Args:
          groups: names of groups; "none" is also accepted, and "all" for those that a decoder has.
          options: other fields of the class.

        Raises:
          ConfigError: a name is no group, or an option is out of range.
        """
        if unknown := set(groups) - {*GROUPS, "all", "none"}:
            raise ConfigError(f"no probe group {sorted(unknown)[0]!r}; there are: all, none, {', '.join(GROUPS)}")
        chosen: dict[str, Any] = {group: group in groups or "all" in groups for group in GROUPS}
        if "router" not in groups and "all" in groups:
            chosen["router"] = None
        return cls(**chosen, **options)

    def of_model(self, config: DecoderSizes) -> Probes:
        """Return the probes with the groups that a decoder has.

        Raises:
          ConfigError: router or experts is requested, and the decoder has no experts.
        """
        for name, place in (("router", "probes: router"), ("experts", "experts:")):
            if getattr(self, name) and not config.chosen_experts:
                raise ConfigError(f"{place} needs a model with experts, and this one is dense; drop {name}")
        return replace(self, router=bool(config.chosen_experts)) if self.router is None else self

    def without_lens(self) -> Probes:
        """Return the probes without the group lens and its options."""
        options = {name: getattr(DEFAULTS, name) for name in LENS_OPTIONS}
        return replace(self, lens=False, **options)

    @property
    def lens_choice(self) -> dict[str, Any]:
        """Options that choose layers and steps of the lens, without those that have their default."""
        chosen = {name: getattr(self, name) for name in ("lens_stride", "lens_layers", "lens_every")}
        return {name: value for name, value in chosen.items() if value != getattr(DEFAULTS, name)}

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the chosen groups; without `router` unless it is True."""
        return tuple(group for group in GROUPS if getattr(self, group))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that a step returns, without those that its sampler adds; see `Metric.only`."""
        return tuple(
            name
            for name, metric in QUANTITIES.items()
            if name in self.step_metrics
            or not metric.group
            or (metric.group != "step_metrics" and getattr(self, metric.group, False))
        )

    @property
    def step_inputs(self) -> frozenset[str]:
        """Fields of `jaxtrace.StepInputs` that the metrics of plug-ins need; errors are those of `Registry.find`."""
        found = [STEP_METRICS.find(name) for name in self.step_metrics]
        return frozenset(field for each in found if each is not None for field in each.needs)

    def layers(self, config: DecoderSizes) -> tuple[int, ...]:
        """Return the layers, from 1, whose metrics but for the lens's are recorded."""
        return chosen_layers(config.num_layers, self.layer_stride)

    def layers_of_lens(self, config: DecoderSizes) -> tuple[int, ...]:
        """Return the layers, from 1, where the lens is taken; () without the group lens."""
        return lens_layers(config.num_layers, vars(self)) if self.lens else ()

    def recorded_layers(self, config: DecoderSizes) -> tuple[int, ...]:
        """Return the layers, from 1, where any metric is recorded: the layer axis of a trace, after the embedding."""
        return recorded_layers(config.num_layers, vars(self) | {"probes": self.of_model(config).groups})

    def carried(self, config: DecoderSizes) -> tuple[int, ...]:
        """Return the layers whose residual stream one step keeps for the next."""
        return (0, *self.layers(config)) if self.hidden else ()

    def stream(self, config: DecoderSizes) -> tuple[int, ...]:
        """Return the layers whose residual stream a step needs, ascending."""
        layers = {*self.carried(config), *self.residuals, *(layer - 1 for layer, _ in self.attention_rows)}
        layers |= {*self.layers_of_lens(config)}
        layers |= {0, *self.layers(config)} if "residuals" in self.step_inputs else set()
        layers |= {layer - 1 for layer in self.layers(config)} if self.hidden else set()
        return tuple(sorted(layers))

    def check(self, config: DecoderSizes) -> None:
        """Raise ConfigError if a layer, a head, a number of tokens, experts or a plug-in do not exist."""
        self.of_model(config)
        _ = self.step_inputs  # imports the plug-ins
        for layer in self.residuals:
            if not 0 <= layer <= config.num_layers:
                raise ConfigError(f"residuals: no layer {layer}; there are 0 (the embedding) to {config.num_layers}")
        for layer in self.lens_layers:
            if layer > config.num_layers:
                raise ConfigError(f"lens_layers: no layer {layer}; there are layers 1 to {config.num_layers}")
        for layer, head in self.attention_rows:
            if not (1 <= layer <= config.num_layers and 0 <= head < config.num_heads):
                raise ConfigError(
                    f"attention_rows: no head {head} of layer {layer}; there are layers 1 to {config.num_layers} "
                    f"and heads 0 to {config.num_heads - 1}"
                )
            if config.kind(layer - 1).cross_attention:
                raise ConfigError(f"attention_rows: layer {layer} attends to images, not to positions; drop it")
            if not config.kind(layer - 1).attends_to_text:
                raise ConfigError(f"attention_rows: layer {layer} is recurrent and has no attention weights; drop it")
        for name in ("top_tokens", "top_k_mass"):
            if (count := getattr(self, name)) > config.vocab_size:
                raise ConfigError(f"{name} is {count}; the vocabulary has {config.vocab_size}, so give fewer")


# Fields of `Probes` besides the groups.
PROBE_OPTIONS = tuple(field.name for field in fields(Probes) if field.name not in GROUPS)
