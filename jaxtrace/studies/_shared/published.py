"""Switches that repeat mistakes of published analyses, to reproduce their numbers; all are off by default.

| switch | mistake | code |
|---|---|---|
| `zero_padding` (`study lens`) | Entropy-Lens pads profiles of shallow models with zeros, which gives the depth away | `pad_with_zeros` |
| `published_checker` (`study lens`, `grade`) | Entropy-Lens reads MMLU's letter from prompt and answer, inside words too | `jaxtrace/grading/published_letter.py` |
| `story-questions-leak` (task) | Entropy-Lens shuffles words again for each request, which gives the kind away | `jaxtrace/tasks/published.py` |
| `compat_duplicate_last_prompt_token` (run) | Algorithm 1 of arXiv 2604.03589 feeds the last prompt token twice | `jaxtrace/engine/encode.py` |

Tasks and the engine stand above the studies, so that their code cannot live here.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtrace.traces.trace import Trace

DUPLICATE_LAST_TOKEN = "compat_duplicate_last_prompt_token"


def pad_with_zeros(profiles: Sequence[Float[np.ndarray, "W L"]]) -> Float[np.ndarray, "n W Lmax"]:
    """Stack profiles layer by layer, with zeros after the last layer of shallower models."""
    size = max(profile.shape[1] for profile in profiles)
    return np.stack([np.pad(profile, ((0, 0), (0, size - profile.shape[1]))) for profile in profiles])


def with_prompt_positions(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings; a run that feeds the last prompt token twice also records the prompt's positions.

    The positions hold the first of the two measurements. Settings that name `prompt_positions` keep it.
    """
    return ({"prompt_positions": True} if run.get(DUPLICATE_LAST_TOKEN) else {}) | dict(run)


def duplicated_tokens(trace: Trace) -> int:
    """Return the number of prompt tokens that the trace's run fed twice: 0 or 1."""
    return int(bool(trace.info.get("last_prompt_token_twice")))
