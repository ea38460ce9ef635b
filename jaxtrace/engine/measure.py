"""From a forward pass to metrics: the one place where a step's quantities are put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.engine.translators import Translators
from jaxtrace.kernels import dispersion_of, softmax_moments
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, unembedding
from jaxtrace.models.forward import Forward, attention_weights, final_norm, unembed
from jaxtrace.models.on_mesh import largest_logits, moments_of_logits
from jaxtrace.schema import QUANTITIES
from jaxtrace.settings.probes import Probes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepTrace:
    """Metrics of one step [B, …] or of T scored positions [B, T, …]; None for what the probes leave out.

    Names, units and definitions are those of `schema.QUANTITIES`. Layers are those that the probes choose, after the
    embedding in `hidden_norm` and `hidden_delta_step`.
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
    quadrant: Int[Array, "*s"] | None = None
    residuals: Float[Array, "*s R D"] | None = None
    top_ids: Int[Array, "*s K"] | None = None
    top_logprobs: Float[Array, "*s K"] | None = None
    lens_renyi: Float[Array, "*s L A"] | None = None
    attention_rows: Float[Array, "*s A S"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawable:
    """What a position's next token is drawn from.

    Attributes:
      top1: the most likely token.
      finite: whether no logit is NaN or +∞.
      logits: None unless asked for.
      metrics: those that a sampler needs.
    """

    top1: Int[Array, "B T"]
    finite: Bool[Array, "B T"]
    logits: Float[Array, "B T V"] | None
    metrics: StepTrace = StepTrace()


NOTHING = Probes.none()


def forward_flags(config: DecoderConfig, probes: Probes, needs: Probes = NOTHING) -> dict[str, Any]:
    """What the forward pass has to return for these probes, and for those that a sampler needs."""
    looking = [each for each in (probes, needs) if each.attention or each.dispersion]
    return {
        "moments": bool(looking),
        "head_jsd": probes.dispersion or needs.dispersion,
        "layers": tuple(sorted({layer for each in looking or [probes] for layer in each.layers(config)})),
        "stream": probes.stream(config),
    }


def measure(
    config: DecoderConfig,
    params: Params,
    result: Forward,
    before: Float[Array, "B L1 D"] | None,
    start: Int[Array, " B"],
    probes: Probes,
    lens: Translators | None = None,
    *,
    targets: Int[Array, "B T"] | None = None,
    keep_logits: bool = False,
    needs: Probes = NOTHING,
) -> tuple[StepTrace, Drawable]:
    """Metrics of the positions of a forward pass, and what their next tokens are drawn from.

    Args:
      config, params: of the decoder.
      result: its forward pass over T positions.
      before: residual stream of the position before the first, of the layers `probes.carried`.
      start: position of the first.
      probes: what to measure.
      lens: of the lens metrics; None for the logit lens.
      targets: tokens whose `logprob` is wanted; NaN for −1 (none) and for a token beyond the vocabulary (an image).
      keep_logits: return the logits, for a sampler.
      needs: metrics of the groups output, attention and dispersion that a sampler needs; the forward pass has the
        `forward_flags` of both.
    """
    trace: dict[str, Array | None] = {}
    needed: dict[str, Array | None] = {}
    keep_logits |= probes.top_tokens > 0
    alone = needs.output and not probes.output
    with jax.named_scope("unembed"):
        if probes.output or probes.lens or needs.output:
            orders = () if alone and not probes.lens_renyi else probes.alphas
            wanted = dataclasses.replace(probes, output=probes.output or needs.output, alphas=orders)
            outputs, drawable = _outputs(config, params, result, wanted, lens, targets, keep_logits)
            trace |= {name: x for name, x in outputs.items() if not (alone and QUANTITIES[name].group == "output")}
            needed |= {name: outputs[name] for name in ("entropy", "varentropy") if needs.output}
        else:
            logits = unembed(config, params, result.hidden)
            rows = softmax_moments(logits, implementation="xla")  # which the partitioner can split
            drawable = Drawable(rows.top1, jnp.isfinite(rows.moments.m), logits)
    with jax.named_scope("attention_metrics"):
        there = forward_flags(config, probes, needs)["layers"]
        trace |= _attention(result, there, probes.layers(config), probes)
        needed |= _attention(result, there, needs.layers(config), needs)
    if probes.hidden:
        assert before is not None
        with jax.named_scope("hidden_metrics"):
            trace |= _hidden(result, probes.layers(config), before, start)
    with jax.named_scope("raw_material"):
        trace |= _raw(config, params, result, start, probes, drawable)
    return StepTrace(**trace), dataclasses.replace(drawable, metrics=StepTrace(**needed))


def _outputs(config, params, result, probes, lens, targets, keep_logits):
    residual = result.residual(probes.layers(config)) if probes.lens else result.hidden[None]
    if probes.lens and lens is not None:
        residual = lens(residual, probes.layers(config))
    groups, b, t, _ = residual.shape
    normed = final_norm(config, params, residual)
    targets, known = (None, jnp.array(False)) if targets is None else _known(targets, config.vocab)
    rows = moments_of_logits(
        normed,
        unembedding(params),
        targets,
        alphas=probes.alphas if probes.output or probes.lens_renyi else (),
        soft_cap=config.logit_soft_cap,
        keep_logits=keep_logits,
    )
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
    if probes.lens_renyi:
        trace["lens_renyi"] = _lens_renyi(config, params, normed, probes.alphas).at[:, :, -1].set(at(rows.renyi))
    finite = jnp.isfinite(rows.moments.logsumexp[-1])
    return trace, Drawable(at(rows.top1[-1]), at(finite), at(rows.logits) if keep_logits else None)


def _lens_renyi(config, params, normed: Float[Array, "G B T D"], alphas: tuple[float, ...]) -> Float[Array, "B T G A"]:
    """Of all groups as rows of output: the only ones of which `unembed_moments` keeps Rényi sums."""
    groups, b, t, width = normed.shape
    rows = jnp.moveaxis(normed, 0, 1).reshape(1, b, groups * t, width)
    options = {"alphas": alphas, "soft_cap": config.logit_soft_cap, "keep_logits": False}
    renyi = moments_of_logits(rows, unembedding(params), None, **options).renyi
    return jnp.moveaxis(renyi.reshape(b, groups, t, len(alphas)), 1, 2)


def _known(targets: Int[Array, "B T"], vocab: int) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Targets with 0 where there is none among the vocabulary, and where there is one."""
    known = (targets >= 0) & (targets < vocab)
    return jnp.where(known, targets, 0), known


def _attention(
    result: Forward, there: tuple[int, ...], layers: tuple[int, ...], probes: Probes
) -> dict[str, Array | None]:
    """Of some of the layers whose attention is there."""
    trace = {}
    if not (probes.attention or probes.dispersion):
        return trace
    attention = result.attention
    if layers != there:
        places = np.array([there.index(layer) for layer in layers])
        attention = jax.tree.map(lambda x: x[places], attention)
    moments = attention.moments
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
            "head_jsd": by_layer(attention.head_jsd),
        }
    return trace


def _hidden(
    result: Forward, layers: tuple[int, ...], before: Float[Array, "B L1 D"], start: Int[Array, " B"]
) -> dict[str, Array]:
    def of(layers: Sequence[int]) -> Float[Array, "B T R D"]:
        return jnp.moveaxis(result.residual(layers).astype(jnp.float32), 0, 2)

    own, below = of((0, *layers)), of([layer - 1 for layer in layers])
    previous = jnp.concatenate([before[:, None], own[:, :-1]], axis=1)
    first = (start[:, None] + jnp.arange(own.shape[1]) == 0)[..., None]
    length = lambda x: jnp.sqrt(jnp.sum(jnp.square(x), axis=-1))  # noqa: E731
    norm = length(own)
    dot = jnp.sum(own[:, :, 1:] * below, axis=-1)
    product = norm[..., 1:] * length(below)
    return {
        "hidden_norm": norm,
        "hidden_delta_layer": length(own[:, :, 1:] - below),
        "hidden_delta_step": jnp.where(first, jnp.nan, length(own - previous)),
        "hidden_cosine_layer": dot / jnp.where(product == 0, 1.0, product),
    }


def _raw(config, params, result, start, probes, drawable) -> dict[str, Array]:
    trace = {}
    if probes.residuals:
        trace["residuals"] = jnp.moveaxis(result.residual(probes.residuals).astype(jnp.float32), 0, 2)
    if probes.top_tokens:
        values, ids = largest_logits(drawable.logits, probes.top_tokens)
        total = jax.nn.logsumexp(drawable.logits, axis=-1, keepdims=True)
        trace |= {"top_ids": ids, "top_logprobs": values - total}
    if probes.attention_rows:
        trace["attention_rows"] = attention_weights(config, params, result, start, probes.attention_rows)
    return trace
