"""What a checkpoint is and what tracing it costs, as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from jaxtrace.checkpoints.huggingface import Checkpoint
from jaxtrace.tracing.cost import lens_flops, parameter_count, step_flops, torch_attention_bytes, trace_bytes
from jaxtrace.tracing.probes import Probes


def checkpoint_table(checkpoint: Checkpoint) -> Table:
    """Shape, memory and tracing cost of a checkpoint, from its config alone."""
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    table = Table(title=None, show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    parameters = parameter_count(config)
    by_group = trace_bytes(config, Probes.all())
    extra = lens_flops(config) / step_flops(config)
    attention = torch_attention_bytes(config, 4096)
    groups = ", ".join(f"{name} {_bytes(size)}" for name, size in by_group.items() if name)
    chat = "" if tokenizer is None else ", chat template" if tokenizer.has_chat_template else ", no chat template"
    for name, value in {
        "checkpoint": checkpoint.name,
        "family": config.family,
        "parameters": f"{parameters:,}  ({_bytes(4 * parameters)} in float32)",
        "layers": f"{config.layers}, {config.embed} wide, feed-forward {config.feed_forward}",
        "heads": f"{config.heads} query, {config.kv_heads} key/value, {config.head_dim} wide",
        "vocabulary": f"{config.vocab:,}{', tied' if config.tied else ''}",
        "context": f"{config.context:,} tokens",
        "tokenizer": ("none: prompts are token ids" if tokenizer is None else type(tokenizer.hf).__name__) + chat,
        "stop tokens": ", ".join(map(str, checkpoint.stop_tokens)) or "none",
        "cache per token": _bytes(config.kv_bytes(1)) + " in float32",
        "trace per token": f"{_bytes(sum(by_group.values()))}  ({groups})",
        "lens per token": f"{lens_flops(config) / 1e9:.3g} GFLOP, {extra:.0%} of a step's, no further weights read",
        "instead of": f"{_bytes(attention)} of attention weights for one prompt of 4,096 tokens",
    }.items():
        table.add_row(name, value)
    return table


def _bytes(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
