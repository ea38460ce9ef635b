"""Changes of every layer's prediction at the last position of prompts (Entropy-Lens, arXiv 2502.16570 v3)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.engine.settings import Settings
from jaxtrace.engine.translators import Translators
from jaxtrace.errors import StudyError, shown
from jaxtrace.kernels.moments import entropy_of
from jaxtrace.model import Model
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.forward import unembed
from jaxtrace.models.on_mesh import use_mesh_of
from jaxtrace.prompts import Prompt
from jaxtrace.settings.probes import Probes
from jaxtrace.studies._shared.progress import OnCount


class Candidates(NamedTuple):
    """Candidate sets of R layers' lenses at one position.

    Attributes:
      entropy: entropy of each layer's distribution, nats.
      size: number of candidates of each layer.
      shared: number of candidates that each layer from the second on shares with the layer before it.
    """

    entropy: Float[Array, " R"]
    size: Int[Array, " R"]
    shared: Int[Array, " R-1"]


@functools.partial(jax.jit, static_argnames="config")
def candidates(
    params: Params,
    residuals: Float[Array, "R D"],
    mass: Float[Array, ""] | float,
    lens: Translators | None = None,
    *,
    config: DecoderConfig,
) -> Candidates:
    """Return entropies, sizes and overlaps of one position's candidate sets, with one layer's logits at a time.

    A set holds the most likely tokens, the lowest id first among equals, until they reach `mass` (top-p; arXiv
    2502.16570 v3 uses p = 0.6).

    Args:
      residuals: residual streams after the layers 0 (the embedding) to L.
      mass: probability that a set reaches, 0 < mass < 1.
      lens: translators of a tuned lens; None for the logit lens.
    """
    streams = residuals.astype(params["embedding"].dtype)
    if lens is not None:
        streams = lens(streams[:, None, None], range(len(streams)))[:, 0, 0]

    def next_layer(before: Bool[Array, " V"], stream: Float[Array, " D"]) -> tuple[Bool[Array, " V"], Candidates]:
        logprobs = jax.nn.log_softmax(unembed(config, params, stream))
        order = jnp.argsort(-logprobs, stable=True)
        reached = jnp.cumsum(jnp.exp(logprobs[order]))
        size = jnp.minimum(jnp.sum(reached < mass) + 1, len(order))
        members = jnp.zeros_like(before).at[order].set(jnp.arange(len(order)) < size)
        return members, Candidates(entropy_of(jnp.exp(logprobs)), size, jnp.sum(members & before))

    _, layers = jax.lax.scan(next_layer, jnp.zeros(config.vocab_size, bool), streams)
    return layers._replace(shared=layers.shared[1:])


@dataclass(frozen=True)
class Expansions:
    """Every layer's prediction at the last position of P prompts; layer 0 is the embedding.

    Attributes:
      entropy: entropy of each layer's lens, nats.
      size: size of each layer's candidate set.
      shared: number of candidates that the layers 1 to L share with the layer before.
    """

    tokens: Int[np.ndarray, " P"]
    vocab: int
    entropy: Float[np.ndarray, "P L1"]
    size: Int[np.ndarray, "P L1"]
    shared: Int[np.ndarray, "P L"]

    @property
    def change(self) -> Float[np.ndarray, "P L"]:
        """ΔH_l = H_l − H_{l−1} of the layers 1 to L, nats; layer 1 is compared with the embedding's lens."""
        return np.diff(self.entropy, axis=1)

    @property
    def growth(self) -> Int[np.ndarray, "P L"]:
        """Growth of the candidate set from each layer to the next, in tokens."""
        return np.diff(self.size, axis=1)

    @property
    def overlap(self) -> Float[np.ndarray, "P L"]:
        """|A ∩ B| / min(|A|, |B|) of neighbouring layers' sets."""
        return self.shared / np.minimum(self.size[:, 1:], self.size[:, :-1])

    @property
    def jaccard(self) -> Float[np.ndarray, "P L"]:
        """|A ∩ B| / |A ∪ B| of neighbouring layers' sets."""
        return self.shared / (self.size[:, 1:] + self.size[:, :-1] - self.shared)

    @property
    def chance(self) -> Float[np.ndarray, "P L"]:
        """Overlap of independently drawn sets of these sizes: max(|A|, |B|) / V."""
        return np.maximum(self.size[:, 1:], self.size[:, :-1]) / self.vocab


def measure_expansions(
    model: Model,
    encoded: Sequence[tuple[Prompt, Int[np.ndarray, " P"]]],
    mass: float,
    batch_size: int = 8,
    on_prompts: OnCount = lambda *_: None,
) -> Expansions:
    """Run prompts up to their last position and measure each layer's prediction there.

    Args:
      encoded: prompts from `model.encode`.
      mass: probability that the candidate sets reach.
      batch_size: number of prompts run at once.

    Raises:
      StudyError: there are no prompts, or some logits are not finite.
    """
    if not encoded:
        raise StudyError("no prompts to measure layers on; give a task with prompts")
    layers = tuple(range(model.config.num_layers + 1))
    settings = Settings(Probes.of(residuals=layers), batch_size=batch_size, max_new_tokens=1)
    lens = None if model.lens is None else model.lens.translators
    measured = []
    for batch in model.generate_rows(encoded, settings):
        with use_mesh_of(model.params):
            for _, row in batch:
                sets = candidates(model.params, row.metrics["residuals"][0], mass, lens, config=model.config)
                measured.append([np.asarray(array) for array in sets])
        on_prompts(len(measured), len(encoded))
    entropy, size, shared = (np.stack(arrays) for arrays in zip(*measured, strict=True))
    if not np.isfinite(entropy).all():
        bad, _ = encoded[int(np.argmin(np.isfinite(entropy).all(1)))]
        raise StudyError(
            f"prompt {shown(bad.id)}: the model's logits are not finite at its last position; drop the prompt"
        )
    tokens = np.array([len(ids) for _, ids in encoded])
    return Expansions(tokens, model.config.vocab_size, entropy.astype(float), size, shared)
