"""What a tuned lens was trained to, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.table import Table

from jaxtrace.engine.tuned_lens import LensCard
from jaxtrace.statistics.differences import paired_difference


def lens_table(card: LensCard, kl: Mapping[str, np.ndarray]) -> Table:
    """KL(final ‖ lens) by layer on the sequences held out, [S, L] of "logit" and "tuned", and what training changed."""
    table = Table(
        title=f"KL(final ‖ lens) in nats on {card.held_out} sequences that were held out",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for header in ("layer", "logit lens", "tuned lens", "change (95 %)"):
        table.add_column(header, justify="right")
    for layer, (before, after) in enumerate(zip(kl["logit"].T, kl["tuned"].T, strict=True)):
        change = paired_difference(after, before).difference
        table.add_row(
            str(layer) if layer else "embedding",
            f"{before.mean():.3f}",
            f"{after.mean():.3f}",
            f"{change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})",
        )
    return table
