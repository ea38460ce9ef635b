"""Result of training a tuned lens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.table import Table

from jaxtrace.engine.tuned_lens import LensCard
from jaxtrace.statistics.differences import paired_difference


def lens_table(card: LensCard, kl: Mapping[str, np.ndarray]) -> Table:
    """Return KL(final ‖ lens) by layer on the held-out sequences, and its change by training.

    Args:
      kl: "logit" and "tuned" → [sequences, layers], nats.
    """
    table = Table(
        title=f"KL(final ‖ lens) in nats on {card.held_out} sequences of {card.held_out_texts} held-out texts "
        f"({card.texts} different texts in all)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for header in ("layer", "logit lens", "tuned lens", "change (95 %)"):
        table.add_column(header, justify="right")
    for layer, (logit, tuned) in enumerate(zip(kl["logit"].T, kl["tuned"].T, strict=True)):
        change = paired_difference(tuned, logit).difference
        table.add_row(
            str(layer) if layer else "embedding",
            f"{logit.mean():.3f}",
            f"{tuned.mean():.3f}",
            f"{change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})",
        )
    return table
