"""Result of training a tuned lens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.table import Table

from jaxtrace.engine.tuned_lens import LensCard
from jaxtrace.statistics.differences import paired_difference
from jaxtrace.statistics.intervals import FEW_NOTE


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
    changes = [paired_difference(*both).difference for both in zip(kl["tuned"].T, kl["logit"].T, strict=True)]
    for layer, (change, logit, tuned) in enumerate(zip(changes, kl["logit"].T, kl["tuned"].T, strict=True)):
        table.add_row(
            str(layer) if layer else "embedding",
            f"{logit.mean():.3f}",
            f"{tuned.mean():.3f}",
            f"{change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f}){'*' if change.few else ''}",
        )
    if any(change.few for change in changes):
        table.caption, table.caption_justify = FEW_NOTE, "left"
    return table
