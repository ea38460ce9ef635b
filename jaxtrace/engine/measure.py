"""Metrics of a forward pass: the one module that computes a step's quantities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.engine.lens_steps import at_every_nth
from jaxtrace.engine.step_metrics import StepInputs, compute_step_metrics
from jaxtrace.engine.translators import Translators
from jaxtrace.kernels import Moments, dispersion_of, softmax_moments
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, unembedding
from jaxtrace.models.forward import ForwardResult, attention_weights, final_norm, unembed
from jaxtrace.models.on_mesh import largest_logits, sharded_unembed_moments, split_vocabulary, splits_vocabulary
from jaxtrace.schema import QUANTITIES
from jaxtrace.settings.probes import Probes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepTrace:
    """Metrics of one step [B, …] or of T scored positions [B, T, …]; None for a metric that the probes exclude.

    `schema.QUANTITIES` has each metric's unit and definition. The layer axis L holds the layers of `Probes.layers`, L1
    the embedding before them, and Z the layers of `Probes.layers_of_lens`. `plugins` holds the metrics of plug-ins by
    name.
    """

    token: Int[Array, "*s"] | None = None
    logprob: Float[Array, "*s"] | None = None
    entropy: Float[Array, "*s"] | None = None
    varentropy: Float[Array, "*s"] | None = None
    renyi: Float[Array, "*s A"] | None = None
    top1_prob: Float[Array, "*s"] | None = None
    top1_top2_gap: Float[Array, "*s"] | None = None
    self_certainty: Float[Array, "*s"] | None = None
    fisher_rao: Float[Array, "*s"] | None = None
    top_k_mass: Float[Array, "*s"] | None = None
    attention_entropy: Float[Array, "*s L N"] | None = None
    attention_varentropy: Float[Array, "*s L N"] | None = None
    attention_entropy_normalized: Float[Array, "*s L N"] | None = None
    attention_entropy_no_sink: Float[Array, "*s L N"] | None = None
    sink_mass: Float[Array, "*s L N"] | None = None
    attention_self: Float[Array, "*s L N"] | None = None
    attention_previous: Float[Array, "*s L N"] | None = None
    attention_prompt_mass: Float[Array, "*s L N"] | None = None
    attention_max: Float[Array, "*s L N"] | None = None
    learned_sink_mass: Float[Array, "*s L N"] | None = None
    hdi: Float[Array, "*s L"] | None = None
    head_jsd: Float[Array, "*s L"] | None = None
    lens_entropy: Float[Array, "*s Z"] | None = None
    lens_varentropy: Float[Array, "*s Z"] | None = None
    lens_kl: Float[Array, "*s Z"] | None = None
    lens_top1: Int[Array, "*s Z"] | None = None
    lens_top1_prob: Float[Array, "*s Z"] | None = None
    hidden_norm: Float[Array, "*s L1"] | None = None
    hidden_delta_layer: Float[Array, "*s L"] | None = None
    hidden_delta_step: Float[Array, "*s L1"] | None = None
    hidden_cosine_layer: Float[Array, "*s L"] | None = None
    router_entropy: Float[Array, "*s L"] | None = None
    router_top_mass: Float[Array, "*s L"] | None = None
    quadrant: Int[Array, "*s"] | None = None
    residuals: Float[Array, "*s R D"] | None = None
    top_ids: Int[Array, "*s K"] | None = None
    top_logprobs: Float[Array, "*s K"] | None = None
    lens_renyi: Float[Array, "*s Z A"] | None = None
    attention_rows: Float[Array, "*s A S"] | None = None
    experts: Int[Array, "*s L C"] | None = None
    plugins: dict[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, Any]:
        """Recorded metrics by name, those of plug-ins among them."""
        own = {name: x for name, x in vars(self).items() if name != "plugins" and x is not None}
        return own | self.plugins


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplerInput:
    """Inputs of the draw after each position.

    Attributes:
      top1: most likely token.
      finite: False if a logit is NaN or +∞.
      logits: raw logits, float32; None for greedy draws.
      metrics: metrics that the sampler needs.
    """

    top1: Int[Array, "B T"]
    finite: Bool[Array, "B T"]
    logits: Float[Array, "B T V"] | None
    metrics: StepTrace = StepTrace()


NO_PROBES = Probes.none()


def forward_flags(config: DecoderConfig, probes: Probes, needs: Probes = NO_PROBES) -> dict[str, Any]:
    """Return the options of `forward` that these probes, and the ones that a sampler needs, require."""
    probes = probes.of_model(config)
    both = probes, needs
    of_layers = [each for each in both if each.attention or each.dispersion or each.router or each.experts]
    of_layers += [probes] * ("attention" in probes.step_inputs)
    return {
        "moments": any(each.attention or each.dispersion for each in both) or "attention" in probes.step_inputs,
        "head_jsd": probes.dispersion or needs.dispersion,
        "router": bool(probes.router),
        "experts": probes.experts,
        "layers": tuple(sorted({layer for each in of_layers or [probes] for layer in each.layers(config)})),
        "stream": probes.stream(config),
    }


def measure(
    config: DecoderConfig,
    params: Params,
    result: ForwardResult,
    before: Float[Array, "B L1 D"] | None,
    start: Int[Array, " B"],
    probes: Probes,
    lens: Translators | None = None,
    *,
    count: Int[Array, " B"] | None = None,
    step: Int[Array, " B"] | None = None,
    targets: Int[Array, "B T"] | None = None,
    keep_logits: bool = False,
    needs: Probes = NO_PROBES,
) -> tuple[StepTrace, SamplerInput]:
    """Compute the metrics of a forward pass's positions, and the inputs of the draws after them.

    Args:
      config: config of the decoder.
      params: parameters of the decoder.
      result: forward pass over T positions, with the `forward_flags` of `probes` and `needs`.
      before: residual stream of the position before the first one, one row per layer in `probes.carried`.
      start: position of the first of the T positions.
      probes: metrics to compute for the trace.
      lens: translators for the lens metrics; None for the logit lens.
      count: number of positions of each row before the padding; None for T.
      step: number of the step at the first of the T positions, for `probes.lens_every`; None for `start`.
      targets: tokens for `logprob`, which is NaN for −1 (no token) and for an id beyond the vocabulary (an image).
      keep_logits: True if the sampler reads the logits.
      needs: metrics that the sampler needs, from the groups output, attention and dispersion.
    """
    probes = probes.of_model(config)
    trace: dict[str, Any] = {}
    needed: dict[str, Any] = {}
    keep_logits |= max(probes.top_tokens, probes.top_k_mass) > 0 or "logits" in probes.step_inputs
    unrecorded = needs.output and not probes.output
    with jax.named_scope("unembed"):
        if probes.output or probes.lens or needs.output:
            alphas = () if unrecorded and not probes.lens_renyi else probes.alphas
            computed = dataclasses.replace(probes, output=probes.output or needs.output, alphas=alphas)
            shared = computed if probes.lens_every == 1 else computed.without_lens()
            outputs, sampler_input, moments = _outputs(config, params, result, shared, lens, targets, keep_logits)
            if probes.lens_every > 1:  # the last layer again, so that the output has the same bits at every step
                lens_alone = dataclasses.replace(probes, output=False)
                outputs |= at_every_nth(
                    lambda at: _outputs(config, params, result, lens_alone, lens, None, False, at)[0],
                    probes.lens_every,
                    start if step is None else step,
                    count,
                    result.hidden.shape[1],
                )
            trace |= {name: x for name, x in outputs.items() if not (unrecorded and QUANTITIES[name].group == "output")}
            needed |= {name: outputs[name] for name in ("entropy", "varentropy") if needs.output}
        else:
            logits = split_vocabulary(unembed(config, params, result.hidden))
            rows = softmax_moments(logits, implementation="xla")  # the partitioner can split XLA operations only
            # The partitioner would gather the logits for an argmax.
            split = splits_vocabulary(logits.shape[-1])
            top1 = largest_logits(logits, 1)[1][..., 0] if split else rows.top1
            sampler_input, moments = SamplerInput(top1, jnp.isfinite(rows.moments.m), logits), rows.moments
    with jax.named_scope("attention_metrics"):
        computed_layers = forward_flags(config, probes, needs)["layers"]
        trace |= _attention(result, computed_layers, probes.layers(config), probes)
        needed |= _attention(result, computed_layers, needs.layers(config), needs)
    trace |= _router(result, computed_layers, probes.layers(config))
    if probes.hidden:
        assert before is not None
        with jax.named_scope("hidden_metrics"):
            trace |= _hidden(result, probes.layers(config), before, start)
    with jax.named_scope("raw_material"):
        trace |= _raw(config, params, result, start, probes, sampler_input)
    with jax.named_scope("step_metrics"):
        plugins = _plugins(config, result, computed_layers, probes, sampler_input, moments)
    return StepTrace(**trace, plugins=plugins), dataclasses.replace(sampler_input, metrics=StepTrace(**needed))


def _outputs(
    config: DecoderConfig,
    params: Params,
    result: ForwardResult,
    probes: Probes,
    lens: Translators | None,
    targets: Int[Array, "B T"] | None,
    keep_logits: bool,
    at: Int[Array, "B P"] | None = None,
) -> tuple[dict[str, Array | None], SamplerInput, Moments]:
    """Compute the groups output and lens, and the output's moments, from one unembedding of all their rows.

    `at` chooses positions of each row; None computes all.
    """
    layers = probes.layers_of_lens(config)
    residual = result.residual(layers) if layers else result.hidden[None]
    if at is not None:
        residual = jnp.take_along_axis(residual, at[None, :, :, None], axis=2, mode="clip")
    if layers and lens is not None:
        residual = lens(residual, layers)
    groups, b, t, _ = residual.shape
    normed = final_norm(config, params, residual)
    targets, known = (None, jnp.array(False)) if targets is None else _known(targets, config.vocab_size)
    rows = sharded_unembed_moments(
        normed,
        unembedding(params),
        targets,
        alphas=probes.alphas if probes.output or probes.lens_renyi else (),
        soft_cap=config.logit_soft_cap,
        keep_logits=keep_logits,
    )
    by_position = lambda x: x.reshape(b, t, *x.shape[1:])  # noqa: E731
    by_layer = lambda x: jnp.moveaxis(x.reshape(groups, b, t), 0, -1)  # noqa: E731
    trace: dict[str, Array | None] = {}
    if probes.output:
        last = jax.tree.map(lambda x: x[-1], rows.moments)
        trace |= {
            "entropy": by_position(last.entropy),
            "varentropy": by_position(last.varentropy),
            "renyi": by_position(rows.renyi),
            "top1_prob": by_position(last.p_max),
            "top1_top2_gap": by_position(rows.top1_top2_gap),
            "self_certainty": by_position(rows.self_certainty),
            "fisher_rao": by_position(rows.fisher_rao),
            "logprob": None if targets is None else jnp.where(known, by_position(rows.target_logprob), jnp.nan),
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
        trace["lens_renyi"] = (
            _lens_renyi(config, params, normed, probes.alphas).at[:, :, -1].set(by_position(rows.renyi))
        )
    finite = jnp.isfinite(rows.moments.logsumexp[-1])
    sampler_input = SamplerInput(
        by_position(rows.top1[-1]), by_position(finite), by_position(rows.logits) if keep_logits else None
    )
    return trace, sampler_input, jax.tree.map(lambda x: by_position(x[-1]), rows.moments)


def _lens_renyi(
    config: DecoderConfig, params: Params, normed: Float[Array, "G B T D"], alphas: tuple[float, ...]
) -> Float[Array, "B T G A"]:
    """Return the Rényi entropies of every layer's prediction.

    `unembed_moments` keeps Rényi sums for output rows only, so the layers go through it a second time as output rows.
    """
    groups, b, t, width = normed.shape
    rows = jnp.moveaxis(normed, 0, 1).reshape(1, b, groups * t, width)
    options = {"alphas": alphas, "soft_cap": config.logit_soft_cap, "keep_logits": False}
    renyi = sharded_unembed_moments(rows, unembedding(params), None, **options).renyi
    return jnp.moveaxis(renyi.reshape(b, groups, t, len(alphas)), 1, 2)


def _known(targets: Int[Array, "B T"], vocab: int) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Return (targets with 0 for each one outside the vocabulary, True for each one inside it)."""
    known = (targets >= 0) & (targets < vocab)
    return jnp.where(known, targets, 0), known


def _attention(
    result: ForwardResult, computed: tuple[int, ...], layers: tuple[int, ...], probes: Probes
) -> dict[str, Array | None]:
    """Return the attention metrics of `layers`, a subset of the layers `computed` in the forward pass."""
    trace = {}
    if not (probes.attention or probes.dispersion):
        return trace
    attention = _of_layers(result.attention, computed, layers)
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
            "attention_self": by_layer(moments.attention_self),
            "attention_previous": by_layer(moments.attention_previous),
            "attention_prompt_mass": by_layer(moments.attention_prompt_mass),
            "attention_max": by_layer(moments.attention_max),
        }
        if moments.learned_sink_mass is not None:
            trace["learned_sink_mass"] = by_layer(moments.learned_sink_mass)
    if probes.dispersion:
        trace |= {
            "hdi": by_layer(dispersion_of(moments.entropy)),
            "head_jsd": by_layer(attention.head_jsd),
        }
    return trace


def _plugins(
    config: DecoderConfig,
    result: ForwardResult,
    computed: tuple[int, ...],
    probes: Probes,
    sampler_input: SamplerInput,
    moments: Moments,
) -> dict[str, Array]:
    """Return the metrics of plug-ins that the probes ask for."""
    if not probes.step_metrics:
        return {}
    layers, needed = probes.layers(config), probes.step_inputs
    inputs: dict[str, Any] = {"moments": moments}
    if "logits" in needed:
        assert sampler_input.logits is not None
        inputs["logits"] = sampler_input.logits[..., : config.vocab_size]
    if "attention" in needed:
        attention = _of_layers(result.attention, computed, layers).moments
        inputs["attention"] = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), attention)
    if "residuals" in needed:
        inputs["residuals"] = jnp.moveaxis(result.residual((0, *layers)).astype(jnp.float32), 0, 2)
    inputs = {name: value for name, value in inputs.items() if name in needed}
    sizes = {"layer": len(layers), "head": config.num_heads}
    return compute_step_metrics(probes.step_metrics, StepInputs(**inputs), sizes, sampler_input.top1.shape)


def _router(result: ForwardResult, computed: tuple[int, ...], layers: tuple[int, ...]) -> dict[str, Array | None]:
    """Return the router metrics of `layers`, a subset of the layers `computed`, that the forward pass was asked for."""
    router = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), _of_layers(result.router, computed, layers))
    return {"router_entropy": router.entropy, "router_top_mass": router.top_mass, "experts": router.experts}


def _of_layers(trace: Any, computed: tuple[int, ...], layers: tuple[int, ...]) -> Any:
    """Return the rows of `layers` of a tree with one row for each of the layers `computed`."""
    if layers == computed:
        return trace
    indices = np.array([computed.index(layer) for layer in layers])
    return jax.tree.map(lambda x: x[indices], trace)


def _hidden(
    result: ForwardResult, layers: tuple[int, ...], before: Float[Array, "B L1 D"], start: Int[Array, " B"]
) -> dict[str, Array]:
    def residual(layers: Sequence[int]) -> Float[Array, "B T R D"]:
        return jnp.moveaxis(result.residual(layers).astype(jnp.float32), 0, 2)

    after, below = residual((0, *layers)), residual([layer - 1 for layer in layers])
    previous = jnp.concatenate([before[:, None], after[:, :-1]], axis=1)
    first = (start[:, None] + jnp.arange(after.shape[1]) == 0)[..., None]
    length = lambda x: jnp.sqrt(jnp.sum(jnp.square(x), axis=-1))  # noqa: E731
    norm = length(after)
    dot = jnp.sum(after[:, :, 1:] * below, axis=-1)
    product = norm[..., 1:] * length(below)
    return {
        "hidden_norm": norm,
        "hidden_delta_layer": length(after[:, :, 1:] - below),
        "hidden_delta_step": jnp.where(first, jnp.nan, length(after - previous)),
        "hidden_cosine_layer": dot / jnp.where(product == 0, 1.0, product),
    }


def _raw(
    config: DecoderConfig,
    params: Params,
    result: ForwardResult,
    start: Int[Array, " B"],
    probes: Probes,
    sampler_input: SamplerInput,
) -> dict[str, Array]:
    """Return the raw material that the probes ask for."""
    trace = {}
    if probes.residuals:
        trace["residuals"] = jnp.moveaxis(result.residual(probes.residuals).astype(jnp.float32), 0, 2)
    if count := max(probes.top_tokens, probes.top_k_mass):
        assert sampler_input.logits is not None
        values, ids = largest_logits(sampler_input.logits, count)
        logprobs = values - jax.nn.logsumexp(sampler_input.logits, axis=-1, keepdims=True)
        if probes.top_tokens:
            trace |= {"top_ids": ids[..., : probes.top_tokens], "top_logprobs": logprobs[..., : probes.top_tokens]}
        if probes.top_k_mass:
            trace["top_k_mass"] = jnp.minimum(jnp.sum(jnp.exp(logprobs[..., : probes.top_k_mass]), axis=-1), 1.0)
    if probes.attention_rows:
        trace["attention_rows"] = attention_weights(config, params, result, start, probes.attention_rows)
    return trace
