"""Mistakes of published code that tasks can repeat; `studies/_shared/published.py` lists all of them."""

from __future__ import annotations

from collections.abc import Callable


def shuffle_again(shuffled: str, shuffle: Callable[[str], str]) -> tuple[str, str]:
    """Return the "ordered" and the shuffled story of the next request, as Entropy-Lens's code makes them.

    From the second request on, the story that counts as ordered is the previous request's shuffled one.
    """
    return shuffled, shuffle(shuffled)
