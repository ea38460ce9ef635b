"""Sizes of a mesh's axes, from text; imports no JAX."""

from __future__ import annotations

import re

from jaxtrace.errors import ConfigError

AXES = ("data", "model")  # rows of a batch are split over the first, parameters over the second


def mesh_sizes(text: str) -> dict[str, int]:
    """Parse the axis sizes of a mesh such as "data=2,model=4"; raise ConfigError if the text is malformed."""
    matches = [re.fullmatch(r"\s*([a-z_]+)\s*=\s*([1-9][0-9]{0,8})\s*", part) for part in text.split(",")]
    sizes = {match[1]: int(match[2]) for match in matches if match}
    if len(sizes) < len(matches) or not sizes.keys() <= {*AXES}:
        raise ConfigError(f"mesh {text!r:.60}: not sizes of {' and '.join(AXES)}; write it like 'data=2,model=4'")
    return sizes
