"""Reference cross-attention: every weight of every head."""

from jaxtyping import Array, Bool, Float

from ..attention import AttentionSums, Keys, Queries, Values, visible_groups
from ..head_dispersion.reference import divergence
from ..prefill_attention.reference import attend, attention_weights


def cross_attention(
    q: Queries, k: Keys, v: Values, groups: Bool[Array, "B T M"], *, scale: float, moments: bool
) -> AttentionSums:
    """Compute cross_attention from all weights at once."""
    mask = visible_groups(groups, k.shape[3])
    return attend(q, k, v, mask, scale=scale, soft_cap=None, moments=moments)


def cross_dispersion(q: Queries, k: Keys, groups: Bool[Array, "B T M"], *, scale: float) -> Float[Array, "B T"]:
    """Compute cross_dispersion from all weights at once."""
    mask = visible_groups(groups, k.shape[3])
    return divergence(attention_weights(q, k, mask, scale, None))
