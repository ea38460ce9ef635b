"""What a checkpoint or a published model is and what tracing it costs, as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from jaxtrace.checkpoints.huggingface import Checkpoint
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.published import Published
from jaxtrace.planning.cost import lens_flops, parameter_count, step_flops, torch_attention_bytes, trace_bytes
from jaxtrace.settings.probes import Probes


def checkpoint_table(checkpoint: Checkpoint, probes: Probes, precision: str) -> Table:
    """Shape and memory of a checkpoint, and the cost of tracing it with some probes, from its config alone."""
    tokenizer = checkpoint.tokenizer
    chat = "" if tokenizer is None else ", chat template" if tokenizer.has_chat_template else ", no chat template"
    return named_table(
        {
            "checkpoint": checkpoint.name,
            **_shape(checkpoint.config),
            "tokenizer": ("none: prompts are token ids" if tokenizer is None else type(tokenizer.hf).__name__) + chat,
            "stop tokens": ", ".join(map(str, checkpoint.stop_tokens)) or "none",
            **_cost(checkpoint.config, probes, precision),
        }
    )


def published_table(model: Published, probes: Probes, precision: str) -> Table:
    """Shape and memory of a published model, and the cost of tracing it, with no file of it at hand."""
    rows = {
        "published as": model.hub_id,
        "belongs to": model.family,
        "weights": f"jaxtrace trace {model.name} asks the hub for them; with --random, it draws its own",
    }
    return named_table(rows | _shape(model.config) | _cost(model.config, probes, precision))


def in_bytes(count: float, digits: int = 4) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.{digits}g} {unit}"
        count /= 1024
    return f"{count:.{digits}g} GiB"


def unlike_layers(config: DecoderConfig) -> str:
    """How many layers look at images, and how many see a window of the text; empty where none does."""
    windows = [kind.window for kind in config.kinds if kind.window is not None]
    looking = sum(kind.cross_attention for kind in config.kinds)
    if looking:
        return f"{looking} of them look at images"
    if windows:
        every = "all" if len(windows) == config.layers else str(len(windows))
        return f"{every} of them see {windows[0]:,} tokens"
    return ""


def _shape(config: DecoderConfig) -> dict[str, str]:
    parameters, unlike, vision = parameter_count(config), unlike_layers(config), config.vision
    rows = {
        "family": config.family,
        "parameters": f"{parameters:,}  ({in_bytes(4 * parameters)} in float32)",
        "layers": f"{config.layers}, {config.embed} wide, feed-forward {config.feed_forward}{unlike and '; ' + unlike}",
        "heads": f"{config.heads} query, {config.kv_heads} key/value, {config.head_dim} wide",
        "vocabulary": f"{config.vocab:,}{', tied' if config.tied else ''}",
        "context": f"{config.context:,} tokens",
    }
    if vision is not None:
        rows["images"] = (
            f"{vision.max_tiles} tiles of {vision.image_size} pixels at most, {vision.patches:,} vectors each, "
            f"through {vision.layers} + {vision.global_layers} layers"
        )
    return rows


def _cost(config: DecoderConfig, probes: Probes, precision: str) -> dict[str, str]:
    probes.check(config)
    by_group = trace_bytes(config, probes, precision=precision)
    groups = ", ".join(f"{name} {in_bytes(size)}" for name, size in by_group.items() if name)
    lens = lens_flops(config, probes) if probes.lens else 0
    extra = lens / step_flops(config)
    attention = torch_attention_bytes(config, 4096)
    return {
        "cache per token": in_bytes(config.kv_bytes(1)) + " in float32",
        "trace per token": f"{in_bytes(sum(by_group.values()))} in {precision}  ({groups})",
        "lens per token": f"{lens / 1e9:.3g} GFLOP, {extra:.0%} of a step's, no further weights read",
        "instead of": f"{in_bytes(attention)} of attention weights for one prompt of 4,096 tokens",
    }


def named_table(rows: dict[str, str]) -> Table:
    """A table for the terminal of names and values."""
    table = Table(title=None, show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table
