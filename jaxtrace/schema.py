"""The table of metrics, from which every column, label, unit, tag and documented table derives.

To add a metric, add a `Metric` here, its computation in `engine/measure.py` and its oracle in `tests/oracle.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtrace.errors import ConfigError
from jaxtrace.plugins import Registry

# Version of the set of definitions, written to every run.json; a run without one has version 1. When the definition of
# a metric changes such that the same model and text get other numbers, raise this by one and add the new number to the
# metric's `changed`. A new metric, a faster computation or a new wording changes no number and raises nothing.
METRICS_VERSION = 2


@dataclass(frozen=True)
class Metric:
    """One quantity of a trace.

    Attributes:
      name: name in code, tables and files.
      dims: dims after (prompt, step): "layer", "head", "alpha"; for raw material also "residual" and "embed", "rank",
        "row" and "key", "slot".
      group: group of `Probes` that records it, or the field of `Probes` for raw material; "sampler" for what a sampler
        adds; "step_metrics" for a plug-in's; "" for what is always recorded.
      unit: "nats", "nats²", "layer", or "" for a pure number or an id.
      definition: one line of text or formula.
      label: name for readers, in plots and in the report page.
      first_layer: 0 if the embedding has a value, else 1. Arrays have one entry for the embedding, if it has a value,
        and one for each of `recorded_layers`.
      integer: True for int32 with −1 for "no value"; False for float32 with NaN.
      names: meanings of the numbers 0, 1, …; () for a quantity.
      column: place among the token columns of the report page and the summary, the least first; equal places keep the
        order of this table. None hides the metric there. Heads and the layers that have values are averaged.
      scale: colour scale of the column in the page: "sequential" (nine steps from the 1st to the 99th percentile),
        "categorical" (one colour per entry of `names`), or None if the page offers no colouring by it.
      plots: names of the figures in `jaxtrace.figures.plots` that draw it.
      tensorboard: kinds of TensorBoard entries: "scalar" (mean of the latest rows), "histogram" (one per layer), "map"
        (layer × head).
      feature: True if a confidence model may use it.
      only: field of `DecoderConfig` that is set for the models that have the metric; "" for all models.
      made_of: metrics that a derived column is computed from; () for a recorded metric.
      changed: values of `METRICS_VERSION` since which the definition differs from the one before.
    """

    name: str
    dims: tuple[str, ...]
    group: str
    unit: str
    definition: str
    label: str
    first_layer: int = 1
    integer: bool = False
    names: tuple[str, ...] = ()
    column: int | None = None
    scale: Literal["sequential", "categorical"] | None = None
    plots: tuple[str, ...] = ()
    tensorboard: tuple[Literal["scalar", "histogram", "map"], ...] = ()
    feature: bool = False
    only: str = ""
    made_of: tuple[str, ...] = ()
    changed: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[str, ...]:
        """Dims of one prompt's array."""
        return ("step", *self.dims)

    @property
    def column_label(self) -> str:
        """Label of the token column, which averages layers and heads."""
        return f"mean {self.label}" if "layer" in self.dims else self.label

    def tag(self, kind: str, layer: int | str = "NN") -> str:
        """Return the tag of a kind of TensorBoard entry; only histograms depend on the layer."""
        tags = {
            "scalar": f"{self.group}/{self.name}",
            "histogram": f"{self.name}/layer_{layer:0>2}",
            "map": f"heads/{self.name}",
        }
        return tags[kind]

    @property
    def axis_label(self) -> str:
        """Label and unit for the axis of a plot."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _by_name(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


# Actions of a sampler at a step, by number, and the region of the step's entropy and varentropy.
QUADRANTS: dict[str, str] = {
    "flowing": "low entropy, low varentropy: the likeliest token",
    "treading": "high entropy, low varentropy: a pause, or a draw",
    "exploring": "low entropy, high varentropy: a branch",
    "resampling": "high entropy, high varentropy: a new draw",
    "adaptive": "in between: the best of several draws",
}

GROUPS = ("output", "attention", "dispersion", "lens", "hidden", "router")
LAYER, HEAD = ("layer",), ("layer", "head")

# fmt: off
METRICS: dict[str, Metric] = _by_name(
    Metric("token", (), "", "", "the token drawn (generate) or that comes next (score)", "token id", integer=True),
    Metric("logprob", (), "output", "nats", "ln p[token]", "log-probability", column=3),
    Metric("entropy", (), "output", "nats", "−Σ p ln p of the next-token distribution", "entropy",
           column=1, scale="sequential", plots=("entropy_steps",), tensorboard=("scalar",), feature=True),
    Metric("varentropy", (), "output", "nats²", "Σ p (ln p + entropy)²", "varentropy",
           column=1, scale="sequential", plots=("entropy_steps",), tensorboard=("scalar",), feature=True),
    Metric("renyi", ("alpha",), "output", "nats", "Rényi entropies, one per α", "Rényi entropy"),
    Metric("top1_prob", (), "output", "", "largest probability", "top-1 probability", column=3, feature=True),
    Metric("top1_top2_gap", (), "output", "", "largest minus second largest probability", "top-1 to top-2 gap",
           column=3, feature=True),
    Metric("self_certainty", (), "output", "nats",
           "KL(U ‖ p) = −(1/V) Σ ln p − ln V; U is uniform over the V tokens whose logit is not −∞",
           "self-certainty", column=3, scale="sequential", plots=("entropy_steps",), tensorboard=("scalar",),
           feature=True),
    Metric("fisher_rao", (), "output", "", "(2/π) arccos(Σ √p / √V): 0 for uniform, towards 1 for a certain token",
           "Fisher–Rao distance", column=3, scale="sequential", plots=("entropy_steps",),
           tensorboard=("scalar",), feature=True),
    Metric("top_k_mass", (), "top_k_mass", "", "Σ of the k largest probabilities", "top-k mass",
           column=3, scale="sequential", plots=("entropy_steps",), tensorboard=("scalar",)),
    # Not a feature: it grows with ln(keys), and so would tell the length.
    Metric("attention_entropy", HEAD, "attention", "nats", "−Σ a ln a over the visible keys", "attention entropy",
           column=3, scale="sequential", plots=("attention_map", "layer_profile"), tensorboard=("histogram", "map")),
    Metric("attention_varentropy", HEAD, "attention", "nats²", "Σ a (ln a + attention_entropy)²",
           "attention varentropy", tensorboard=("map",)),
    Metric("attention_entropy_normalized", HEAD, "attention", "", "attention_entropy / ln(visible keys)",
           "attention entropy / ln(keys)", column=3, scale="sequential", plots=("attention_map",), feature=True),
    Metric("attention_entropy_no_sink", HEAD, "attention", "nats",
           "entropy with position 0 excluded and the rest renormalised; attention_entropy where position 0 is out of "
           "sight", "attention entropy without the sink", tensorboard=("map",), changed=(2,)),
    Metric("sink_mass", HEAD, "attention", "", "weight on position 0; 0 where it is out of sight", "sink mass",
           column=3, tensorboard=("map",), feature=True, changed=(2,)),
    Metric("attention_self", HEAD, "attention", "", "weight on the query's own position", "weight on itself",
           column=3, tensorboard=("map",), feature=True),
    Metric("attention_previous", HEAD, "attention", "",
           "weight on the position before the query's own; 0 where it is out of sight",
           "weight on the previous position", tensorboard=("map",)),
    # Not a feature: it falls as the answer grows, and so would tell the length.
    Metric("attention_prompt_mass", HEAD, "attention", "", "weight on the prompt's positions", "weight on the prompt",
           column=3, scale="sequential", tensorboard=("map",)),
    Metric("attention_max", HEAD, "attention", "", "largest weight", "largest attention weight",
           tensorboard=("map",), feature=True),
    Metric("learned_sink_mass", HEAD, "attention", "",
           "softmax weight of the head's learned sink beside the visible keys; the other attention metrics are over "
           "the keys alone, renormalised",
           "learned sink mass", only="learned_sink", column=3, tensorboard=("map",), feature=True),
    Metric("hdi", LAYER, "dispersion", "nats", "standard deviation over heads of attention_entropy",
           "head dispersion (HDI)", column=3, scale="sequential", plots=("layer_profile",), feature=True),
    Metric("head_jsd", LAYER, "dispersion", "nats", "H(mean over heads) − mean over heads of H", "head divergence",
           column=3, plots=("layer_profile",), feature=True),
    Metric("lens_entropy", LAYER, "lens", "nats", "entropy of softmax(unembed(final_norm(x_l)))", "lens entropy",
           plots=("lens_profile",), tensorboard=("histogram",), feature=True),
    Metric("lens_varentropy", LAYER, "lens", "nats²", "varentropy of softmax(unembed(final_norm(x_l)))",
           "lens varentropy", plots=("lens_profile",), feature=True),
    Metric("lens_kl", LAYER, "lens", "nats", "KL(final ‖ lens)", "KL(final ‖ lens)",
           plots=("lens_profile",), feature=True),
    Metric("lens_top1", LAYER, "lens", "", "the lens's most likely token", "lens top-1 token id", integer=True),
    Metric("lens_top1_prob", LAYER, "lens", "", "probability of lens_top1", "lens top-1 probability", feature=True),
    Metric("hidden_norm", LAYER, "hidden", "", "‖x_l‖₂", "residual norm", first_layer=0, feature=True),
    Metric("hidden_delta_layer", LAYER, "hidden", "", "‖x_l − x_{l−1}‖₂", "residual change by layer", feature=True),
    Metric("hidden_delta_step", LAYER, "hidden", "", "‖x_l(t) − x_l(t−1)‖₂", "residual change by step",
           first_layer=0, feature=True),
    Metric("hidden_cosine_layer", LAYER, "hidden", "", "cos(x_l, x_{l−1})", "residual cosine by layer", feature=True),
    Metric("router_entropy", LAYER, "router", "nats",
           "−Σ p ln p over all experts; p is the router's softmax, or its sigmoids divided by their sum; missing in "
           "dense layers", "router entropy",
           column=3, scale="sequential", plots=("router_profile",), tensorboard=("scalar", "histogram"), feature=True),
    Metric("router_top_mass", LAYER, "router", "", "Σ p over the chosen experts, with the p of router_entropy",
           "mass of the chosen experts", column=3, plots=("router_profile",), tensorboard=("scalar",), feature=True),
    Metric("quadrant", (), "sampler", "",
           f"action of entropix or dslider: {', '.join(f'{number} {name}' for number, name in enumerate(QUADRANTS))}",
           "sampler's quadrant", integer=True, names=tuple(QUADRANTS), column=5, scale="categorical"),
)

# Recorded only on request: many numbers, expensive ones, or inputs for a user's own probes.
RAW: dict[str, Metric] = _by_name(
    Metric("residuals", ("residual", "embed"), "residuals", "", "x_l, the residual stream after named layers",
           "residual stream"),
    Metric("top_ids", ("rank",), "top_tokens", "", "the most likely next tokens, the likeliest first",
           "likeliest tokens", integer=True),
    Metric("top_logprobs", ("rank",), "top_tokens", "nats", "ln p of each token of top_ids",
           "log-probabilities of the likeliest tokens"),
    Metric("lens_renyi", ("layer", "alpha"), "lens_renyi", "nats", "Rényi entropies of the lens, one per α",
           "lens Rényi entropy"),
    Metric("attention_rows", ("row", "key"), "attention_rows", "",
           "a_k of named heads over positions 0 to the step's own; NaN beyond", "attention weights"),
    Metric("experts", ("layer", "slot"), "experts", "", "numbers of the chosen experts, the first choice first",
           "chosen experts", integer=True),
)

QUANTITIES = METRICS | RAW


@dataclass(frozen=True)
class StepMetric:
    """A metric of a plug-in.

    Attributes:
      metric: its entry of this table.
      compute: function from `jaxtrace.StepInputs` to an array.
      needs: names of the fields of `StepInputs` that it reads.
    """

    metric: Metric
    compute: Callable[..., Any]
    needs: tuple[str, ...]


COLUMNS = ("prompt", "step", "position", "layer", "token_text")  # columns of a trace's tables that are no metrics
STEP_METRICS: Registry[StepMetric] = Registry("step_metrics")


def add_step_metric(metric: StepMetric, origin: str) -> None:
    """Add a plug-in's metric to the table; raises ConfigError if its name is taken."""
    name = metric.metric.name
    if name in (*COLUMNS, *DERIVED) or (name in QUANTITIES and QUANTITIES[name].group != "step_metrics"):
        raise ConfigError(f"{STEP_METRICS.group}: {name!r} is a name of jaxtrace's own; choose another one")
    STEP_METRICS.register(name, metric, origin)
    METRICS[name] = QUANTITIES[name] = metric.metric


# Token columns that are computed from a trace when they are shown or used; no file holds them.
DERIVED: dict[str, Metric] = _by_name(
    Metric("confidence", (), "", "", "probability that the answer is right", "confidence",
           column=0, scale="sequential"),
    Metric("surprisal", (), "output", "nats", "−ln p[token]", "surprisal",
           column=2, scale="sequential", feature=True, made_of=("logprob",)),
    Metric("surprise_z", (), "output", "", "(surprisal − entropy) / √varentropy", "standardised surprisal",
           feature=True, made_of=("logprob", "entropy", "varentropy")),
    Metric("prediction_depth", (), "lens", "layer", "first layer whose top-1 is the last layer's and stays so",
           "prediction depth", column=4, scale="sequential", feature=True, made_of=("lens_top1",)),
)
# fmt: on


def token_column_metrics() -> dict[str, Metric]:
    """Return the metrics that the report page and the summary show per token, in their order."""
    shown = [metric for metric in (*METRICS.values(), *DERIVED.values()) if metric.column is not None]
    return _by_name(*sorted(shown, key=lambda metric: metric.column or 0))


def plotted_in(figure: str) -> tuple[str, ...]:
    """Return the names of the metrics that a figure draws."""
    return tuple(name for name, metric in METRICS.items() if figure in metric.plots)


def in_tensorboard(kind: str) -> tuple[str, ...]:
    """Return the names of the metrics that have TensorBoard entries of a kind."""
    return tuple(name for name, metric in METRICS.items() if kind in metric.tensorboard)


def feature_names() -> tuple[str, ...]:
    """Return the names of the metrics that a confidence model may use.

    Metrics of a step come first, then metrics of layers; each kind is followed by the columns derived from it.
    """
    return tuple(metric.name for metric in (*_features(layered=False), *_features(layered=True)))


def _features(*, layered: bool) -> Iterator[Metric]:
    for metric in (*METRICS.values(), *DERIVED.values()):
        sources = [METRICS[name] for name in metric.made_of] or [metric]
        if metric.feature and layered == any("layer" in source.dims for source in sources):
            yield metric


def changed_between(version: int, other: int) -> tuple[str, ...]:
    """Return the names of the metrics whose definition differs between two values of `METRICS_VERSION`.

    A derived column changes with each metric that it is made of.
    """
    low, high = sorted((version, other))
    changed = {
        name for name, metric in (QUANTITIES | DERIVED).items() if any(low < at <= high for at in metric.changed)
    }
    changed |= {name for name, metric in DERIVED.items() if not changed.isdisjoint(metric.made_of)}
    return tuple(name for name in QUANTITIES | DERIVED if name in changed)


def definition_note(versions: Iterable[int]) -> str | None:
    """Return one line that names the metrics whose definitions differ among runs, or None if none differ.

    Args:
      versions: `metrics_version` of each run.
    """
    low, high = min(versions := [*versions]), max(versions)
    if not (changed := changed_between(low, high)):
        return None
    return (
        f"runs of metrics_version {low} and {high} are together, between which the definition changed of "
        f"{', '.join(changed)}; compare these metrics only among runs of one version"
    )


def chosen_layers(num_layers: int, stride: int) -> tuple[int, ...]:
    """Return every `stride`-th layer of 1 … `num_layers`, counted back from the last one."""
    return tuple(range(num_layers, 0, -stride))[::-1]


def lens_layers(num_layers: int, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the layers, from 1, where the lens is taken: those listed and the last one, or every n-th layer.

    Args:
      num_layers: number of layers of the model.
      options: options of `Probes` by name, such as `Trace.info`; an absent one has its default.
    """
    if listed := options.get("lens_layers"):
        return tuple(sorted({*listed, num_layers}))
    return chosen_layers(num_layers, options.get("lens_stride") or options.get("layer_stride", 1))


def recorded_layers(num_layers: int, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the layers, from 1, where any metric is recorded; the arguments are those of `lens_layers`.

    "probes" in `options` holds the groups, None for all.
    """
    every_nth, groups = chosen_layers(num_layers, options.get("layer_stride", 1)), options.get("probes")
    if not (options.get("lens_layers") or options.get("lens_stride")):
        return every_nth
    others = groups is None or not {"attention", "dispersion", "hidden", "router"}.isdisjoint(groups)
    if others or options.get("experts") or options.get("step_metrics"):
        return tuple(sorted({*every_nth, *lens_layers(num_layers, options)}))
    return lens_layers(num_layers, options)


def layers_of_metric(name: str, num_layers: int, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the layers, from 1, where a metric of layers is recorded; the arguments are those of `lens_layers`."""
    if QUANTITIES[name].group in ("lens", "lens_renyi"):
        return lens_layers(num_layers, options)
    return chosen_layers(num_layers, options.get("layer_stride", 1))
