"""Cross-attention for XLA: blocks of queries, each over all keys."""

from jaxtyping import Array, Bool, Float

from ..attention import AttentionSums, Keys, Queries, Values, visible_groups
from ..head_dispersion.xla import divergence
from ..prefill_attention.xla import attend, block_scores, map_query_blocks


def cross_attention(
    q: Queries, k: Keys, v: Values, groups: Bool[Array, "B T M"], *, scale: float, moments: bool
) -> AttentionSums:
    """Compute cross_attention a block of queries at a time."""

    def attend_block(q: Queries, groups: Bool[Array, "B T M"]) -> AttentionSums:
        mask = visible_groups(groups, k.shape[3])
        return attend(q, k, v, mask, scale=scale, soft_cap=None, moments=moments)

    return map_query_blocks(attend_block, q, groups, k.shape[3])


def cross_dispersion(
    q: Queries, k: Keys, groups: Bool[Array, "B T M"], *, scale: float, axis_name: str | tuple[str, ...] | None = None
) -> Float[Array, "B T"]:
    """Compute cross_dispersion a block of queries at a time."""

    def block_divergence(q: Queries, groups: Bool[Array, "B T M"]) -> Float[Array, "B T"]:
        mask = visible_groups(groups, k.shape[3])
        return divergence(block_scores(q, k, mask, scale, None), axis_name)

    return map_query_blocks(block_divergence, q, groups, k.shape[3])
