"""The published models as a table for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtrace.errors import ConfigError
from jaxtrace.figures.checkpoint import in_bytes, unlike_layers
from jaxtrace.models.published import PUBLISHED, Published
from jaxtrace.planning.cost import parameter_count, trace_bytes
from jaxtrace.settings.probes import Probes

LEGEND = """
heads  query/key-value × width
cache  of keys and values, per token in bfloat16
trace  of all probes, per token
jaxtrace info NAME says more; jaxtrace trace NAME --random needs no weights."""


def models_table(wanted: str = "") -> Group:
    """The published models whose family, name or hub id contains a text, in 80 columns.

    Raises:
      ConfigError: there is none.
    """
    models = [m for m in PUBLISHED if wanted.lower() in f"{m.family} {m.name} {m.hub_id}".lower()]
    if not models:
        raise ConfigError(f"no published model is called {wanted!r}; jaxtrace models lists them all")
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("name\n  hub id", overflow="fold")
    for header in ("parameters\nlayers", "heads\ncontext", "cache\ntrace"):
        table.add_column(header, justify="right", no_wrap=True)
    family = None
    for model in models:
        if model.family != family:
            family = model.family
            table.add_row(f"\n[bold]{family}[/bold]")
        table.add_row(*_cells(model))
    return Group(table, Text(LEGEND))


def _cells(model: Published) -> tuple[str, ...]:
    config = model.config
    unlike = unlike_layers(config)
    return (
        f"[bold]{model.name}[/bold]\n  {model.hub_id}" + (f"\n  {config.layers} layers, {unlike}" if unlike else ""),
        f"{parameter_count(config):,}\n{config.layers}",
        f"{config.heads}/{config.kv_heads} × {config.head_dim}\n{config.context:,}",
        f"{in_bytes(config.kv_bytes(1, 2), 3)}\n{in_bytes(sum(trace_bytes(config, Probes.all()).values()), 3)}",
    )
