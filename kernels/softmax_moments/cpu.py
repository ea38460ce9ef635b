"""softmax_moments for CPUs: one pass of C++ over each row."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..cpu_functions import logit_sums
from ..cpu_functions import refuses as refuses
from ..moments import Alphas, Moments
from .reference import tempered
from .types import SoftmaxSums


def softmax_moments(
    logits: Float[Array, "R V"], *, alphas: Alphas, temperature: Float[Array, " R"] | None
) -> SoftmaxSums:
    """Compute softmax_moments of rows of logits that are held at once."""
    logits = tempered(logits, temperature)
    (m, l, a, b, _), top1, sums = logit_sums(logits, 1, len(logits), alphas)  # noqa: E741
    *r, c, second = sums
    of_orders = jnp.stack(r, axis=-1) if r else jnp.zeros((len(logits), 0))
    return SoftmaxSums(Moments(m[0], l[0], a[0], b[0], of_orders, alphas, c if 0 in alphas else None), top1[0], second)
