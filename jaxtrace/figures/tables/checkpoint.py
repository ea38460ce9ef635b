"""Shape of a checkpoint or a published model, and the cost of tracing it."""

from __future__ import annotations

from rich.table import Table

from jaxtrace.checkpoints.huggingface import Checkpoint
from jaxtrace.figures.tables.parts import lens_text, named_values, special_layers
from jaxtrace.memory import format_bytes
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.published import PublishedModel
from jaxtrace.planning.cost import (
    active_parameter_count,
    lens_flops,
    parameter_count,
    step_flops,
    torch_attention_bytes,
    trace_bytes,
)
from jaxtrace.planning.times import Rates, step_seconds
from jaxtrace.settings.probes import Probes

POSITIONS = 1024  # in the cache of each row of a step whose time is estimated


def checkpoint_table(checkpoint: Checkpoint, probes: Probes, precision: str, batch: int, rates: Rates) -> Table:
    """Return the shape, memory and tracing cost of a checkpoint, from its config and the rates of a device alone."""
    tokenizer = checkpoint.tokenizer
    quantisation = checkpoint.quantisation
    chat = "" if tokenizer is None else ", chat template" if tokenizer.has_chat_template else ", no chat template"
    return named_values(
        {
            "checkpoint": checkpoint.name,
            **({} if checkpoint.revision is None else {"revision": checkpoint.revision}),
            **_shape(checkpoint.config),
            **({} if quantisation is None else {"stored as": f"{quantisation.text}, dequantised as it is read"}),
            "tokenizer": ("none: prompts are token ids" if tokenizer is None else tokenizer.kind) + chat,
            "stop tokens": ", ".join(map(str, checkpoint.stop_tokens)) or "none",
            **_cost(checkpoint.config, probes, precision),
            **_times(checkpoint.config, probes, batch, rates),
        }
    )


def published_table(model: PublishedModel, probes: Probes, precision: str, batch: int, rates: Rates) -> Table:
    """Return the shape, memory and tracing cost of a published model, without any of its files."""
    rows = {
        "published as": model.hub_id,
        "belongs to": model.family,
        "weights": f"jaxtrace trace {model.name} downloads them from the hub; --random draws random ones",
    }
    costs = _cost(model.config, probes, precision) | _times(model.config, probes, batch, rates)
    return named_values(rows | _shape(model.config) | costs)


def _shape(config: DecoderConfig) -> dict[str, str]:
    parameters, special, vision = parameter_count(config), special_layers(config), config.vision
    rows = {
        "family": config.family,
        "parameters": f"{parameters:,}  ({format_bytes(4 * parameters)} in float32)",
        "active": f"{active_parameter_count(config):,} parameters for each token",
        "layers": f"{config.num_layers}, {config.embed_dim} wide, {_feed_forward(config)}"
        + (special and f"; {special}"),
        "heads": f"{config.num_heads} query, {config.size_text('kv_heads')} key/value, "
        f"{config.size_text('head_dim')} wide",
        "vocabulary": f"{config.vocab_size:,}{', tied' if config.tied else ''}",
        "context": f"{config.context:,} tokens",
    }
    if config.experts is None:
        del rows["active"]
    if vision is not None:
        rows["images"] = (
            f"at most {vision.max_tiles} tiles of {vision.image_size} pixels, {vision.patches:,} vectors each, "
            f"through {vision.num_layers} + {vision.global_layers} layers"
        )
    return rows


def _feed_forward(config: DecoderConfig) -> str:
    """Return the widths of dense feed-forward blocks, and the experts."""
    experts = config.experts
    beside = experts is not None and experts.beside_dense
    widths = sorted({size.feed_forward for size in config.sizes if size.experts is None or beside})
    parts = [f"feed-forward {' or '.join(map(str, widths))}"] if widths else []
    if experts is not None:
        shared = f", and one of {experts.shared} for all" if experts.shared else ""
        parts.append(f"{experts.number} experts of {experts.feed_forward}, {experts.chosen} for each token{shared}")
    return (" beside " if beside else " or ").join(parts)


def _cost(config: DecoderConfig, probes: Probes, precision: str) -> dict[str, str]:
    by_group = trace_bytes(config, probes, precision=precision)
    groups = ", ".join(f"{name} {format_bytes(size)}" for name, size in by_group.items() if name)
    lens = lens_flops(config, probes)
    attention = torch_attention_bytes(config, 4096)
    recurrent = config.recurrent_bytes()
    return {
        "cache per token": format_bytes(config.kv_bytes(1)) + " in float32",
        **({"state per row": f"{format_bytes(recurrent)} in float32, for any number of tokens"} if recurrent else {}),
        "trace per token": f"{format_bytes(sum(by_group.values()))} in {precision}  ({groups})",
        **lens_text(probes, config),
        "lens per token": f"{lens / 1e9:.3g} GFLOP, {lens / step_flops(config):.0%} of a step's",
        "instead of": f"{format_bytes(attention)} of attention weights for one prompt of 4,096 tokens",
    }


def _times(config: DecoderConfig, probes: Probes, batch: int, rates: Rates) -> dict[str, str]:
    """Return the estimated time of a step and of each group of probes, for one row and for a batch."""
    positions = min(POSITIONS, config.context)
    rows = {"time of a step": f"estimated for float32 and {positions:,} positions from {rates}"}
    for count in sorted({1, batch}):
        plain, *groups = (
            f"{name} {_milliseconds(seconds)}"
            for name, seconds in step_seconds(config, probes, rates, count, positions).items()
        )
        rows[f"  {count} row{'s' * (count > 1)}"] = ", ".join([plain, *(f"+ {group}" for group in groups)])
    return rows


def _milliseconds(seconds: float) -> str:
    if seconds < 1e-4:
        return "under 0.1 ms"
    return f"{1e3 * seconds:.2g} ms" if seconds < 0.1 else f"{1e3 * seconds:,.0f} ms"
