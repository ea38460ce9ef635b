"""Moments of hidden states × unembedding, without stored logits."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float, Int

from ..dispatch import Operation
from ..moments import with_uniform_orders
from . import cpu, gpu, reference, tpu, xla
from .types import UnembedMoments

OPERATION = Operation.from_modules("unembed_moments", tpu=tpu, gpu=gpu, cpu=cpu, xla=xla, reference=reference)


def unembed_moments(
    hidden: Float[Array, "G R D"],
    unembedding: Float[Array, "V D"],
    *,
    alphas: tuple[float, ...] = (),
    soft_cap: float | None = None,
    targets: Int[Array, " R"] | None = None,
    keep_logits: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
    extra_rows: Float[Array, "E D"] | None = None,
    implementation: str | None = None,
) -> UnembedMoments:
    """Return the moments of softmax(hidden · unembeddingᵀ) for the output rows and their lenses, in one product.

    Args:
      hidden: normalised hidden states; group G−1 is the model's output, the groups before it are lens rows that
        are compared with it row by row.
      unembedding: unembedding matrix, one row per token, as tied embeddings are stored.
      alphas: orders of the Rényi entropies of the output.
      soft_cap: soft cap c of the logits, which become c · tanh(logits / c).
      targets: token ids whose log-probability under the output is returned.
      keep_logits: whether to return the output's logits [R, V], for a sampler.
      axis_name: mesh axis, or axes, within `jax.shard_map`, over which the vocabulary is split evenly: `unembedding` is
        this device's part, `targets` are ids of the whole vocabulary, and all devices get the whole rows' result by one
        exchange of a few scalars per row; `logits` are this device's part.
      extra_rows: last rows of this device's part, where the vocabulary cannot be split evenly. The last device lacks
        them: it ignores the values it is given, and their `logits` are −1e30.
      implementation: name of the implementation; None for the platform's default.

    Returns:
      UnembedMoments; entropy within 1e-5 nats and varentropy within 1e-4 nats² of float64 given the same logits. A row
      with a logit of NaN or +∞ is NaN (and so is its lenses' `kl`); other rows are unaffected.

    Raises:
      Unsupported: the requested implementation is unavailable here.
      ValueError: shapes do not agree.
    """
    if hidden.ndim != 3 or unembedding.ndim != 2:
        raise ValueError(
            f"unembed_moments: hidden {hidden.shape} and unembedding {unembedding.shape} have the wrong rank; "
            "give [G, R, D] and [V, D]"
        )
    vocabulary, width = unembedding.shape
    if hidden.shape[2] != width:
        raise ValueError(
            f"unembed_moments: hidden states are {hidden.shape[2]} wide, the unembedding {width}; give equal widths"
        )
    if not (hidden.size and vocabulary):
        raise ValueError(
            f"unembed_moments: hidden {hidden.shape} or unembedding {unembedding.shape} is empty; "
            "give at least one group, one row and one token"
        )
    part = vocabulary + (0 if extra_rows is None else len(extra_rows))
    if targets is not None:
        if targets.shape != hidden.shape[1:2]:
            raise ValueError(
                f"unembed_moments: targets {targets.shape} do not fit {hidden.shape[1]} rows; give one to each row"
            )
        if axis_name is not None:
            targets = targets - jax.lax.axis_index(axis_name) * part
    orders = with_uniform_orders(alphas)
    options: dict[str, Any] = {"alphas": orders, "soft_cap": soft_cap, "keep_logits": keep_logits}
    sums = OPERATION(hidden, unembedding, targets=targets, implementation=implementation, **options)
    if extra_rows is not None:
        present = jax.lax.axis_index(axis_name) < jax.lax.axis_size(axis_name) - 1
        extra_targets = None if targets is None else targets - vocabulary
        extra = xla.unembed_if_present(hidden, extra_rows, present, targets=extra_targets, **options)
        sums = sums.followed_by(extra, vocabulary, alphas)
    return (sums if axis_name is None else sums.all_gather(axis_name, part, alphas)).result(alphas)
