"""Parts that the terminal's tables share: plain tables and numbers with units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jaxtrace.errors import visible
from jaxtrace.models.config import DecoderConfig
from jaxtrace.settings.probes import Probes


def plain(value: object) -> str | Text:
    """Return a value as a cell in which no console finds markup, and of which a terminal obeys nothing."""
    text = visible(value, keep="\n")
    return text if escape(text) == text else Text(text)


def named_values(rows: Mapping[str, str]) -> Table:
    """Return a table of names and values, without a header."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(plain(name), plain(value))
    return table


def stacked_table(first: str, *headers: str) -> Table:
    """Return an empty table in 80 columns whose cells hold several lines; all but the first column are numbers."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def lens_text(probes: Probes, config: DecoderConfig) -> dict[str, str]:
    """Return the row on where the lens is taken, if the probes choose its layers or steps."""
    if not probes.lens_choice:
        return {}
    steps = f", at one step of {probes.lens_every} (costs are means over steps)" if probes.lens_every > 1 else ""
    layers = ", ".join(map(str, probes.layers_of_lens(config)))
    return {"lens at": f"layers {layers} of {config.num_layers}{steps}"}


def heads_text(config: DecoderConfig) -> str:
    """Return the sizes of attention: query heads, key/value heads, and their width."""
    return f"{config.num_heads}/{config.kv_heads} × {config.head_dim}"


def special_layers(config: DecoderConfig) -> str:
    """Return the numbers of layers that differ: in what they attend to, and in the sizes of heads; "" without any."""
    attending = [kind for kind in config.kinds if kind.delta_net is None]
    if image_layers := sum(kind.cross_attention for kind in config.kinds):
        return f"{image_layers} of them look at images"
    windows = [kind.window for kind in attending if kind.window is not None]
    number = "all" if len(windows) == config.num_layers else str(len(windows))
    sharing = sum(kind.kv_source is not None for kind in config.kinds)
    heads = Counter(heads_text(config.sized(kind)) for kind in attending)
    texts = [f"{number} of them see {window:,} tokens" for window in windows[:1]]
    chunks = [kind.chunk for kind in config.kinds if kind.chunk is not None]
    texts += [f"{len(chunks)} of them see the {chunk:,} tokens of their chunk" for chunk in chunks[:1]]
    texts += [f"{count} have heads {text}" for text, count in heads.items() if text != heads_text(config)]
    recurrent = config.num_layers - len(attending)
    texts += [f"{sharing} share keys and values"] * bool(sharing)
    return ", ".join(texts + [f"{recurrent} are gated delta nets"] * bool(recurrent))
