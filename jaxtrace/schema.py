"""The names of everything a trace holds: one table, read by the step, the store, the report and the README."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One quantity of a trace.

    Attributes:
      dims: dims after (prompt, step): "layer", "head", "alpha"; of raw material "residual" and "embed", "rank", "row"
        and "key".
      group: the group of `Probes` that turns it on, or the field of raw material; "sampler" for what a sampler may add;
        "" for what is always there.
      unit: "nats", "nats²", "" for a pure number or an id.
      first_layer: 0 where the embedding has a value, else 1. Arrays have an entry for the embedding, if it has a value,
        and one for each of `chosen_layers`.
      integer: int32 with −1 for "no value"; otherwise float32 with NaN.
      text: the definition in a line.
    """

    dims: tuple[str, ...]
    group: str
    unit: str
    text: str
    first_layer: int = 1
    integer: bool = False


LAYER, HEAD = ("layer",), ("layer", "head")

METRICS: dict[str, Metric] = {
    "token": Metric((), "", "", "the token drawn (generate) or that comes next (score)", integer=True),
    "logprob": Metric((), "output", "nats", "ln p[token]"),
    "entropy": Metric((), "output", "nats", "−Σ p ln p of the next-token distribution"),
    "varentropy": Metric((), "output", "nats²", "Σ p (ln p + entropy)²"),
    "renyi": Metric(("alpha",), "output", "nats", "Rényi entropies, one per α"),
    "top1_prob": Metric((), "output", "", "largest probability"),
    "top1_top2_gap": Metric((), "output", "", "largest minus second largest probability"),
    "attention_entropy": Metric(HEAD, "attention", "nats", "−Σ a ln a over the visible keys"),
    "attention_varentropy": Metric(HEAD, "attention", "nats²", "Σ a (ln a + attention_entropy)²"),
    "attention_entropy_normalized": Metric(HEAD, "attention", "", "attention_entropy / ln(visible keys)"),
    "attention_entropy_no_sink": Metric(
        HEAD, "attention", "nats", "entropy with the first position left out and the rest renormalised"
    ),
    "sink_mass": Metric(HEAD, "attention", "", "weight on the first visible position"),
    "hdi": Metric(LAYER, "dispersion", "nats", "standard deviation over heads of attention_entropy"),
    "head_jsd": Metric(LAYER, "dispersion", "nats", "H(mean over heads) − mean over heads of H"),
    "lens_entropy": Metric(LAYER, "lens", "nats", "entropy of softmax(unembed(final_norm(x_l)))"),
    "lens_varentropy": Metric(LAYER, "lens", "nats²", "varentropy of the same"),
    "lens_kl": Metric(LAYER, "lens", "nats", "KL(final ‖ lens)"),
    "lens_top1": Metric(LAYER, "lens", "", "the lens's most likely token", integer=True),
    "lens_top1_prob": Metric(LAYER, "lens", "", "its probability"),
    "hidden_norm": Metric(LAYER, "hidden", "", "‖x_l‖₂", first_layer=0),
    "hidden_delta_layer": Metric(LAYER, "hidden", "", "‖x_l − x_{l−1}‖₂"),
    "hidden_delta_step": Metric(LAYER, "hidden", "", "‖x_l(t) − x_l(t−1)‖₂", first_layer=0),
    "hidden_cosine_layer": Metric(LAYER, "hidden", "", "cos(x_l, x_{l−1})"),
    "quadrant": Metric(
        (),
        "sampler",
        "",
        "what entropix or dslider did: 0 flowing, 1 treading, 2 exploring, 3 resampling, 4 adaptive",
        integer=True,
    ),
}

# What a sampler may do at a step, by number, and where the step's entropy and varentropy then lie.
QUADRANTS: dict[str, str] = {
    "flowing": "low entropy, low varentropy: the likeliest token",
    "treading": "high entropy, low varentropy: a pause, or a draw",
    "exploring": "low entropy, high varentropy: a branch",
    "resampling": "high entropy, high varentropy: a draw anew",
    "adaptive": "in between: the best of some draws",
}

GROUPS = ("output", "attention", "dispersion", "lens", "hidden")

# Given out only where it is asked for: many numbers, for probes of one's own, or dear ones.
RAW: dict[str, Metric] = {
    "residuals": Metric(("residual", "embed"), "residuals", "", "x_l, the residual stream after named layers"),
    "top_ids": Metric(("rank",), "top_tokens", "", "the most likely next tokens, the likeliest first", integer=True),
    "top_logprobs": Metric(("rank",), "top_tokens", "nats", "ln p of each of these"),
    "lens_renyi": Metric(("layer", "alpha"), "lens_renyi", "nats", "Rényi entropies of the lens, one per α"),
    "attention_rows": Metric(
        ("row", "key"), "attention_rows", "", "a_k of named heads over positions 0 to the step's own; NaN beyond"
    ),
}

QUANTITIES = METRICS | RAW


def chosen_layers(layers: int, stride: int) -> tuple[int, ...]:
    """Every so many-th layer of 1 … `layers`, such that the last one is among them."""
    return tuple(range(layers, 0, -stride))[::-1]
