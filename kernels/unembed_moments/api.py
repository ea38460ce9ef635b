"""unembed_moments: hidden states × unembedding → moments, with no stored logits."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Int

from ..dispatch import Operation
from . import gpu, reference, tpu, xla
from .types import UnembedMoments

OPERATION = Operation.of_modules("unembed_moments", tpu=tpu, gpu=gpu, xla=xla, reference=reference)


def unembed_moments(
    hidden: Float[Array, "G R D"],
    unembedding: Float[Array, "V D"],
    *,
    alphas: tuple[float, ...] = (),
    soft_cap: float | None = None,
    targets: Int[Array, " R"] | None = None,
    keep_logits: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
    rest: Float[Array, "E D"] | None = None,
    implementation: str | None = None,
) -> UnembedMoments:
    """Moments of softmax(hidden · unembeddingᵀ) for the output rows and their lenses, in one product.

    Args:
      hidden: normalised hidden states; group G−1 is the model's output, the groups before it are lens rows that
        are compared with it row by row.
      unembedding: one row per token, as tied embeddings are stored.
      alphas: orders of the Rényi entropies, of the output alone.
      soft_cap: logits become cap · tanh(logits / cap).
      targets: token ids whose log-probability under the output is wanted.
      keep_logits: also return the output's logits [R, V], for a sampler.
      axis_name: mesh axis, or axes, within `jax.shard_map`, over which the vocabulary is split evenly: `unembedding` is
        this device's part, `targets` are ids of the whole vocabulary, and all devices get the whole rows' result by one
        exchange of a few scalars a row; `logits` are this device's part.
      rest: where the vocabulary cannot be split evenly, the last few rows of this device's part, which the last device
        lacks: what stands there in their place does not count, and its `logits` are −1e30.
      implementation: its name; None for the platform's default.

    Returns:
      UnembedMoments; entropy within 1e-5 nats and varentropy within 1e-4 nats² of float64 given the same logits. A row
      with a logit of NaN or +∞ is NaN (and so is its lenses' `kl`); others are not touched.

    Raises:
      Unsupported: the implementation asked for is not to be had.
      ValueError: shapes do not agree.
    """
    if hidden.ndim != 3 or unembedding.ndim != 2:
        raise ValueError(f"unembed_moments: {hidden.shape} and {unembedding.shape} are not [G, R, D] and [V, D]")
    own, width = unembedding.shape
    part = own + (0 if rest is None else len(rest))
    if hidden.shape[2] != width:
        raise ValueError(f"unembed_moments: hidden states are {hidden.shape[2]} wide, and the unembedding {width}")
    if not (hidden.size and own):
        raise ValueError("unembed_moments: needs at least one group, one row and one token")
    if targets is not None:
        if targets.shape != hidden.shape[1:2]:
            raise ValueError(
                f"unembed_moments: {targets.shape[0]} targets for {hidden.shape[1]} rows; give one to each"
            )
        if axis_name is not None:
            targets = targets - jax.lax.axis_index(axis_name) * part
    options = {"alphas": alphas, "soft_cap": soft_cap, "keep_logits": keep_logits}
    sums = OPERATION(hidden, unembedding, targets=targets, implementation=implementation, **options)
    if rest is not None:
        there = jax.lax.axis_index(axis_name) < jax.lax.axis_size(axis_name) - 1
        few = xla.of_few(hidden, rest, there, targets=None if targets is None else targets - own, **options)
        sums = sums.followed_by(few, own, alphas)
    return (sums if axis_name is None else sums.over(axis_name, part, alphas)).result(alphas)
