"""What a trace costs per token, counted from shapes alone."""

from __future__ import annotations

import math

import jax

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import abstract_params
from jaxtrace.tracing.probes import Probes
from jaxtrace.tracing.schema import METRICS


def parameter_count(config: DecoderConfig) -> int:
    """Parameters of a decoder; a tied unembedding counts once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config)))


def trace_bytes(config: DecoderConfig, probes: Probes) -> dict[str, int]:
    """Bytes per token that a step returns, by group of metrics ("" for the token itself), all 32-bit."""
    sizes = {"layer": config.layers, "head": config.heads, "alpha": len(probes.alphas)}
    total = dict.fromkeys(("", *probes.groups), 0)
    for name in probes.metrics:
        metric = METRICS[name]
        entries = math.prod(sizes[dim] for dim in metric.dims)
        if metric.first_layer == 0 and "layer" in metric.dims:
            entries += entries // config.layers
        total[metric.group] += 4 * entries
    return total


def step_flops(config: DecoderConfig) -> int:
    """Multiplications and additions of a plain decode step per token of text, attention over the cache left out.

    They are those of the matrices it is multiplied by: embeddings are looked up, and what looks at images is skipped.
    """
    attention = 2 * (config.heads + config.kv_heads) * config.head_dim * config.embed
    feed_forward = (3 if config.gated else 2) * config.feed_forward * config.embed
    return 2 * (_text_layers(config) * (attention + feed_forward) + config.vocab * config.embed)


def lens_flops(config: DecoderConfig) -> int:
    """What the lens of every layer adds to that; it reads no more weights."""
    return 2 * (config.layers - 1) * config.vocab * config.embed


def torch_attention_bytes(config: DecoderConfig, tokens: int) -> int:
    """Bytes of the attention weights of a whole prompt of text, all heads of all layers, in float32."""
    return 4 * _text_layers(config) * config.heads * tokens**2


def _text_layers(config: DecoderConfig) -> int:
    """Layers that attend to the text."""
    return sum(not kind.cross_attention for kind in config.kinds)
