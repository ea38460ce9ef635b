"""Mistakes of published code that tasks and grades can repeat; `studies/_shared/published.py` lists all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def has_letter_anywhere(answer: str, letters: Sequence[str]) -> bool:
    """Return whether the right letter is any letter of an MMLU answer, as Entropy-Lens grades (arXiv 2502.16570)."""
    return answer in letters


def shuffle_again(shuffled: str, shuffle: Callable[[str], str]) -> tuple[str, str]:
    """Return the "ordered" and the shuffled story of the next request, as Entropy-Lens's code makes them.

    From the second request on, the story that counts as ordered is the previous request's shuffled one.
    """
    return shuffled, shuffle(shuffled)
