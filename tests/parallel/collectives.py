"""Exchanges between devices in a compiled program, read from its HLO."""

import math
import re

KINDS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"
CALL = re.compile(rf" = (.*?) ({KINDS})(?:-start)?\(")


def collectives(text):
    """Return (kind, entries of the largest array) of every collective."""
    entries = []
    for result, kind in CALL.findall(text):
        arrays = re.findall(r"\w\[([\d,]*)\]", result)
        entries.append((kind, max(math.prod(int(n) for n in dims.split(",") if n) for dims in arrays)))
    return entries


def check(text, config, rows, tokens, slots):
    """Raise AssertionError if devices exchange more than activations and the heads' mean attention, for the JSD.

    Args:
      text: HLO of a step.
      config: decoder's config.
      rows: number of rows of the step.
      tokens: number of tokens per row.
      slots: number of slots of the cache.
    """
    exchanges = collectives(text)
    assert exchanges, "devices exchange nothing"
    for kind, entries in exchanges:
        width = max(config.embed_dim, slots) if kind == "all-reduce" else config.embed_dim
        assert entries <= rows * tokens * width, f"{kind} of {entries} entries"
