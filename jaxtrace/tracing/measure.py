"""From a forward pass to metrics: the one place where a step's quantities are put together."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.kernels import UnembedMoments, dispersion_of, softmax_moments, unembed_moments
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, unembedding
from jaxtrace.models.forward import Forward, final_norm, unembed
from jaxtrace.models.on_mesh import PARTS, ROWS, mapped, split
from jaxtrace.tracing.probes import Probes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepTrace:
    """Metrics of one step [B, …] or of T scored positions [B, T, …]; None for what the probes leave out.

    Names, units and definitions are those of `schema.METRICS`. Layers count from 1, but from 0 (the embedding) in
    `hidden_norm` and `hidden_delta_step`.
    """

    token: Int[Array, "*s"] | None = None
    logprob: Float[Array, "*s"] | None = None
    entropy: Float[Array, "*s"] | None = None
    varentropy: Float[Array, "*s"] | None = None
    renyi: Float[Array, "*s A"] | None = None
    top1_prob: Float[Array, "*s"] | None = None
    top1_top2_gap: Float[Array, "*s"] | None = None
    attention_entropy: Float[Array, "*s L N"] | None = None
    attention_varentropy: Float[Array, "*s L N"] | None = None
    attention_entropy_normalized: Float[Array, "*s L N"] | None = None
    attention_entropy_no_sink: Float[Array, "*s L N"] | None = None
    sink_mass: Float[Array, "*s L N"] | None = None
    hdi: Float[Array, "*s L"] | None = None
    head_jsd: Float[Array, "*s L"] | None = None
    lens_entropy: Float[Array, "*s L"] | None = None
    lens_varentropy: Float[Array, "*s L"] | None = None
    lens_kl: Float[Array, "*s L"] | None = None
    lens_top1: Int[Array, "*s L"] | None = None
    lens_top1_prob: Float[Array, "*s L"] | None = None
    hidden_norm: Float[Array, "*s L1"] | None = None
    hidden_delta_layer: Float[Array, "*s L"] | None = None
    hidden_delta_step: Float[Array, "*s L1"] | None = None
    hidden_cosine_layer: Float[Array, "*s L"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawable:
    """What a position's next token is drawn from.

    Attributes:
      top1: the most likely token.
      finite: whether no logit is NaN or +∞.
      logits: None unless asked for.
    """

    top1: Int[Array, "B T"]
    finite: Bool[Array, "B T"]
    logits: Float[Array, "B T V"] | None


def forward_flags(probes: Probes) -> dict[str, Any]:
    """What the forward pass has to return for these probes."""
    return {
        "moments": probes.attention or probes.dispersion,
        "head_jsd": probes.dispersion,
        "stream": probes.lens or probes.hidden,
    }


def measure(
    config: DecoderConfig,
    params: Params,
    result: Forward,
    before: Float[Array, "B L1 D"] | None,
    start: Int[Array, " B"],
    probes: Probes,
    *,
    targets: Int[Array, "B T"] | None = None,
    keep_logits: bool = False,
) -> tuple[StepTrace, Drawable]:
    """Metrics of the positions of a forward pass, and what their next tokens are drawn from.

    Args:
      config, params: of the decoder.
      result: its forward pass over T positions.
      before: residual stream of the position before the first; needed by `probes.hidden`.
      start: position of the first.
      probes: what to measure.
      targets: tokens whose `logprob` is wanted; NaN for −1 (none) and for a token beyond the vocabulary (an image).
      keep_logits: return the logits, for a sampler.
    """
    trace: dict[str, Array | None] = {}
    with jax.named_scope("unembed"):
        if probes.output or probes.lens:
            outputs, drawable = _outputs(config, params, result, probes, targets, keep_logits)
            trace |= outputs
        else:
            logits = unembed(config, params, result.hidden)
            rows = softmax_moments(logits, implementation="xla")  # which the partitioner can split
            drawable = Drawable(rows.top1, jnp.isfinite(rows.moments.m), logits)
    with jax.named_scope("attention_metrics"):
        trace |= _attention(result, probes)
    if probes.hidden:
        assert result.stream is not None and before is not None
        with jax.named_scope("hidden_metrics"):
            trace |= _hidden(result.stream, before, start)
    return StepTrace(**trace), drawable


def _outputs(config, params, result, probes, targets, keep_logits):
    residual = result.stream[1:] if probes.lens else result.hidden[None]
    groups, b, t, d = residual.shape
    normed = final_norm(config, params, residual).reshape(groups, b * t, d)
    targets, known = (None, jnp.array(False)) if targets is None else _known(targets, config.vocab)
    table, split_rows = unembedding(params), split(ROWS, b)
    split_vocab = split(PARTS, len(table))

    def unembed_rows(normed, table, targets):
        return unembed_moments(
            normed,
            table,
            alphas=probes.alphas if probes.output else (),
            soft_cap=config.logit_soft_cap,
            targets=targets,
            keep_logits=keep_logits,
            axis_name=split_vocab,
        )

    of_group, of_row = P(None, split_rows), P(split_rows)
    out_specs = UnembedMoments(of_group, of_row, of_group, of_group, of_row, of_row, P(split_rows, split_vocab))
    unembed_mapped = mapped(unembed_rows, (of_group, P(split_vocab), of_row), out_specs)
    rows = unembed_mapped(normed, table, None if targets is None else targets.reshape(-1))
    at = lambda x: x.reshape(b, t, *x.shape[1:])  # noqa: E731
    by_layer = lambda x: jnp.moveaxis(x.reshape(groups, b, t), 0, -1)  # noqa: E731
    trace = {}
    if probes.output:
        last = jax.tree.map(lambda x: x[-1], rows.moments)
        trace |= {
            "entropy": at(last.entropy),
            "varentropy": at(last.varentropy),
            "renyi": at(rows.renyi),
            "top1_prob": at(last.p_max),
            "top1_top2_gap": at(rows.top1_top2_gap),
            "logprob": None if targets is None else jnp.where(known, at(rows.target_logprob), jnp.nan),
        }
    if probes.lens:
        trace |= {
            "lens_entropy": by_layer(rows.moments.entropy),
            "lens_varentropy": by_layer(rows.moments.varentropy),
            "lens_kl": by_layer(rows.kl),
            "lens_top1": by_layer(rows.top1),
            "lens_top1_prob": by_layer(rows.moments.p_max),
        }
    finite = jnp.isfinite(rows.moments.logsumexp[-1])
    return trace, Drawable(at(rows.top1[-1]), at(finite), at(rows.logits) if keep_logits else None)


def _known(targets: Int[Array, "B T"], vocab: int) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Targets with 0 where there is none among the vocabulary, and where there is one."""
    known = (targets >= 0) & (targets < vocab)
    return jnp.where(known, targets, 0), known


def _attention(result: Forward, probes: Probes) -> dict[str, Array]:
    trace = {}
    if not (probes.attention or probes.dispersion):
        return trace
    moments = result.attention.moments
    assert moments is not None
    by_layer = lambda x: jnp.moveaxis(x, 0, 2)  # noqa: E731
    if probes.attention:
        trace |= {
            "attention_entropy": by_layer(moments.entropy),
            "attention_varentropy": by_layer(moments.varentropy),
            "attention_entropy_normalized": by_layer(moments.entropy_normalized),
            "attention_entropy_no_sink": by_layer(moments.entropy_no_sink),
            "sink_mass": by_layer(moments.sink_mass),
        }
    if probes.dispersion:
        trace |= {
            "hdi": by_layer(dispersion_of(moments.entropy)),
            "head_jsd": by_layer(result.attention.head_jsd),
        }
    return trace


def _hidden(
    stream: Float[Array, "L1 B T D"], before: Float[Array, "B L1 D"], start: Int[Array, " B"]
) -> dict[str, Array]:
    stream = jnp.moveaxis(stream.astype(jnp.float32), 0, 2)
    previous = jnp.concatenate([before[:, None], stream[:, :-1]], axis=1)
    first = (start[:, None] + jnp.arange(stream.shape[1]) == 0)[..., None]
    length = lambda x: jnp.sqrt(jnp.sum(jnp.square(x), axis=-1))  # noqa: E731
    norm = length(stream)
    dot = jnp.sum(stream[:, :, 1:] * stream[:, :, :-1], axis=-1)
    product = norm[..., 1:] * norm[..., :-1]
    return {
        "hidden_norm": norm,
        "hidden_delta_layer": length(stream[:, :, 1:] - stream[:, :, :-1]),
        "hidden_delta_step": jnp.where(first, jnp.nan, length(stream - previous)),
        "hidden_cosine_layer": dot / jnp.where(product == 0, 1.0, product),
    }
