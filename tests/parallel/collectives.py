"""What devices exchange in a compiled program, by its HLO."""

import math
import re

KINDS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"
CALL = re.compile(rf" = (.*?) ({KINDS})(?:-start)?\(")


def exchanged(text):
    """(kind, entries of its largest array) of every collective."""
    found = []
    for result, kind in CALL.findall(text):
        arrays = re.findall(r"\w\[([\d,]*)\]", result)
        found.append((kind, max(math.prod(int(n) for n in dims.split(",") if n) for dims in arrays)))
    return found


def check(text, config, rows, tokens, slots):
    """Raises AssertionError where more is exchanged than activations, and the mixture of heads that the JSD is of.

    Args:
      text: HLO of a step of so many rows and tokens, over a cache of so many slots.
    """
    found = exchanged(text)
    assert found, "devices exchange nothing"
    for kind, entries in found:
        width = max(config.embed, slots) if kind == "all-reduce" else config.embed
        assert entries <= rows * tokens * width, f"{kind} of {entries} entries"
