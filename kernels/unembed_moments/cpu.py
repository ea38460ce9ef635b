"""unembed_moments for CPUs: XLA's product, and one pass of C++ over its logits."""

import jax.numpy as jnp

from ..cpu_functions import logit_sums
from ..cpu_functions import refuses as refuses
from ..linear import padded_linear
from ..moments import Alphas, Moments
from ..soft_cap import Cap, soft_capped
from .reference import target_logits
from .types import Hidden, Targets, Unembedding, UnembedSums
from .xla import BLOCK_ENTRIES, map_rows


def unembed_moments(
    hidden: Hidden, unembedding: Unembedding, *, alphas: Alphas, soft_cap: Cap, targets: Targets, keep_logits: bool
) -> UnembedSums:
    """Compute unembed_moments a block of rows at a time."""
    groups, _, width = hidden.shape

    def block(hidden: Hidden, targets: Targets) -> UnembedSums:
        rows = hidden.shape[1]
        logits = soft_capped(padded_linear(hidden.reshape(-1, width), unembedding, jnp.float32), soft_cap)
        (m, l, a, b, cross), top1, sums = logit_sums(logits, groups, rows, alphas)  # noqa: E741
        output = logits[(groups - 1) * rows : groups * rows]
        *r, c, second = sums
        return UnembedSums(
            moments=Moments(m, l, a, b, jnp.zeros((*m.shape, 0))),
            r=tuple(r),
            c=c if 0 in alphas else None,
            top1=top1,
            second=second,
            cross=cross,
            target=None if targets is None else target_logits(output, targets),
            logits=output if keep_logits else None,
        )

    return map_rows(block, BLOCK_ENTRIES // (groups * unembedding.shape[0]), hidden, targets)
