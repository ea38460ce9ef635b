"""Cost of a trace per token, counted from shapes alone."""

from __future__ import annotations

import math

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import active_parameter_count as active_parameter_count
from jaxtrace.models.decoder import parameter_count as parameter_count
from jaxtrace.schema import QUANTITIES
from jaxtrace.settings.probes import Probes


def trace_bytes(
    config: DecoderConfig, probes: Probes, *, precision: str = "float32", positions: int | None = None
) -> dict[str, int]:
    """Return the uncompressed bytes per token of a trace, by probe group or kind of raw material ("" for the token id).

    Args:
      precision: "float32" (4 bytes) or "float16" (2 bytes) for floats; integers take 4 bytes.
      positions: length of an attention row; None for the whole context.

    A value that is missing takes none: with `lens_every`, the lens's are means over steps, rounded up.
    """
    probes = probes.of_model(config)
    sizes = {
        "layer": len(probes.layers(config)),
        "head": config.num_heads,
        "alpha": len(probes.alphas),
        "residual": len(probes.residuals),
        "embed": config.embed_dim,
        "rank": probes.top_tokens,
        "row": len(probes.attention_rows),
        "key": config.context if positions is None else positions,
        "slot": config.chosen_experts,
    }
    float_size = {"float32": 4, "float16": 2}[precision]
    total: dict[str, int] = {}
    for name in probes.metrics:
        metric = QUANTITIES[name]
        if metric.only and not getattr(config, metric.only):
            continue
        entries = math.prod(sizes[dim] for dim in metric.dims)
        if metric.group in ("lens", "lens_renyi"):
            entries = entries // sizes["layer"] * len(probes.layers_of_lens(config))
        if metric.first_layer == 0 and "layer" in metric.dims:
            entries += entries // sizes["layer"]
        total[metric.group] = total.get(metric.group, 0) + (4 if metric.integer else float_size) * entries
    for group in total.keys() & {"lens", "lens_renyi"}:
        total[group] = -(-total[group] // probes.lens_every)
    return total


def step_flops(config: DecoderConfig) -> int:
    """Return the multiplications and additions of a plain decode step per token of text, attention scores excluded.

    Only matrix products count: embeddings are looked up, and a text without images skips the cross-attention layers.
    """
    layer_inputs = config.num_layers * config.layer_input
    outputs = sum(_outputs(config, kind) for kind in config.kinds if not kind.cross_attention)
    return 2 * config.embed_dim * (outputs + layer_inputs + config.vocab_size)


def _outputs(config: DecoderConfig, kind: LayerKind) -> int:
    """Return the sum, over the matrices of a layer, of the dimension that is not the width of the residual stream."""
    layer, net = config.sized(kind), kind.delta_net
    keys_and_values = (1 if kind.keys_as_values else 2) if kind.kv_source is None else 0
    mixing = ((2 + layer.output_gate) * layer.num_heads + keys_and_values * layer.kv_heads) * layer.head_dim
    if net is not None:  # queries, keys and values, their gate and output, and two factors of each value head
        mixing = net.channels + 2 * net.value_heads * (net.value_dim + 1)
    matrices, experts = 3 if layer.gated else 2, layer.experts
    hidden = matrices * layer.feed_forward
    if experts is not None:
        hidden = experts.number + experts.shared_gate + (hidden if experts.beside_dense else 0)
        hidden += matrices * (experts.chosen * experts.feed_forward + experts.shared)
    return mixing + hidden + 2 * layer.layer_input


def lens_rows(config: DecoderConfig, probes: Probes) -> float:
    """Return the rows per token that the lens unembeds beside the output, a mean over steps with `lens_every`.

    The output's row is the last layer's, unless the lens is taken at some steps only: it then computes this row again.
    """
    layers = len(probes.layers_of_lens(config))
    again = probes.lens_every > 1 or not layers
    return (layers * (2 if probes.lens_renyi else 1) - (not again)) / probes.lens_every


def lens_flops(config: DecoderConfig, probes: Probes = Probes.all()) -> int:  # noqa: B008
    """Return the multiplications and additions per token that the lens adds, a mean over steps with `lens_every`."""
    return int(2 * lens_rows(config, probes) * config.vocab_size * config.embed_dim)


def torch_attention_bytes(config: DecoderConfig, tokens: int) -> int:
    """Return the bytes of the float32 attention weights of a prompt of text, over all heads and layers."""
    return 4 * _text_layers(config) * config.num_heads * tokens**2


def _text_layers(config: DecoderConfig) -> int:
    """Return the number of layers that attend to the text."""
    return sum(kind.attends_to_text for kind in config.kinds)
