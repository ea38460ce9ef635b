"""unembed_moments: hidden states × unembedding → moments, with no stored logits."""

from __future__ import annotations

from jaxtyping import Array, Float, Int

from ..dispatch import Implementation, Operation
from . import reference, xla
from .types import UnembedMoments

OPERATION = Operation(
    "unembed_moments",
    xla=Implementation(xla.unembed_moments),
    reference=Implementation(reference.unembed_moments),
)


def unembed_moments(
    hidden: Float[Array, "G R D"],
    unembedding: Float[Array, "V D"],
    *,
    alphas: tuple[float, ...] = (),
    soft_cap: float | None = None,
    targets: Int[Array, " R"] | None = None,
    keep_logits: bool = False,
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
      implementation: "xla" or "reference"; None for the platform's default.

    Returns:
      UnembedMoments; entropy within 1e-5 nats and varentropy within 1e-4 nats² of float64 given the same logits.

    Raises:
      Unsupported: the implementation asked for is not to be had.
    """
    return OPERATION(
        hidden,
        unembedding,
        alphas=alphas,
        soft_cap=soft_cap,
        targets=targets,
        keep_logits=keep_logits,
        implementation=implementation,
    )
