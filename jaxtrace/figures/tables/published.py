"""Published models and their sizes."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from jaxtrace.errors import ConfigError
from jaxtrace.figures.tables.parts import heads_text, special_layers, stacked_table
from jaxtrace.memory import format_bytes
from jaxtrace.models.published import PUBLISHED, PublishedModel
from jaxtrace.planning.cost import trace_bytes
from jaxtrace.settings.probes import Probes

LEGEND = """
heads  query/key-value × width
cache  keys and values, per token in bfloat16
trace  all probes, per token
jaxtrace info NAME says more; jaxtrace trace NAME --random needs no weights."""


def models_table(pattern: str = "") -> Group:
    """Return the published models whose family, name or hub id contains a text, in 80 columns.

    Raises:
      ConfigError: no model does.
    """
    models = [m for m in PUBLISHED if pattern.lower() in f"{m.family} {m.name} {m.hub_id}".lower()]
    if not models:
        raise ConfigError(f"{pattern!r}: no published model has this name; run jaxtrace models to list all")
    table = stacked_table("name\n  hub id", "parameters\nlayers", "heads\ncontext", "cache\ntrace")
    family = None
    for model in models:
        if model.family != family:
            family = model.family
            table.add_row(Text.assemble("\n", (family, "bold")))
        table.add_row(*_cells(model))
    return Group(table, Text(LEGEND))


def _cells(model: PublishedModel) -> tuple[str | Text, ...]:
    config = model.config
    special = special_layers(config)
    traced = sum(trace_bytes(config, Probes.all()).values())
    return (
        Text.assemble(
            (model.name, "bold"),
            f"\n  {model.hub_id}",
            f"\n  {config.num_layers} layers, {special}" if special else "",
        ),
        f"{model.parameters:,}\n{config.num_layers}",
        f"{heads_text(config)}\n{config.context:,}",
        f"{format_bytes(config.kv_bytes(1, 2), 3)}\n{format_bytes(traced, 3)}",
    )
