"""What a trace costs per token, counted from shapes alone."""

from __future__ import annotations

import math

import jax

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import abstract_params
from jaxtrace.schema import QUANTITIES
from jaxtrace.settings.probes import Probes


def parameter_count(config: DecoderConfig) -> int:
    """Parameters of a decoder; a tied unembedding counts once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config)))


def trace_bytes(
    config: DecoderConfig, probes: Probes, *, precision: str = "float32", positions: int | None = None
) -> dict[str, int]:
    """Bytes per token of a trace, uncompressed, by group of metrics or kind of raw material ("" for the token itself).

    Args:
      config: of the decoder.
      probes: what is recorded.
      precision: of floats: 4 bytes of "float32", 2 of "float16"; integers have 4.
      positions: how many an attention row is long; the whole context if None.
    """
    sizes = {
        "layer": len(probes.layers(config)),
        "head": config.heads,
        "alpha": len(probes.alphas),
        "residual": len(probes.residuals),
        "embed": config.embed,
        "rank": probes.top_tokens,
        "row": len(probes.attention_rows),
        "key": config.context if positions is None else positions,
    }
    of_float = {"float32": 4, "float16": 2}[precision]
    total: dict[str, int] = {}
    for name in probes.metrics:
        metric = QUANTITIES[name]
        entries = math.prod(sizes[dim] for dim in metric.dims)
        if metric.first_layer == 0 and "layer" in metric.dims:
            entries += entries // sizes["layer"]
        total[metric.group] = total.get(metric.group, 0) + (4 if metric.integer else of_float) * entries
    return total


def step_flops(config: DecoderConfig) -> int:
    """Multiplications and additions of a plain decode step per token of text, attention over the cache left out.

    They are those of the matrices it is multiplied by: embeddings are looked up, and what looks at images is skipped.
    """
    attention = 2 * (config.heads + config.kv_heads) * config.head_dim * config.embed
    feed_forward = (3 if config.gated else 2) * config.feed_forward * config.embed
    return 2 * (_text_layers(config) * (attention + feed_forward) + config.vocab * config.embed)


def lens_flops(config: DecoderConfig, probes: Probes | None = None) -> int:
    """What the lens of every chosen layer adds to that; it reads no more weights."""
    layers = config.layers if probes is None else len(probes.layers(config))
    again = layers if probes is not None and probes.lens_renyi else 0
    return 2 * (layers - 1 + again) * config.vocab * config.embed


def torch_attention_bytes(config: DecoderConfig, tokens: int) -> int:
    """Bytes of the attention weights of a whole prompt of text, all heads of all layers, in float32."""
    return 4 * _text_layers(config) * config.heads * tokens**2


def _text_layers(config: DecoderConfig) -> int:
    """Layers that attend to the text."""
    return sum(not kind.cross_attention for kind in config.kinds)
