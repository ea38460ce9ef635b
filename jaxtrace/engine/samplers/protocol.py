"""The interface of a sampler: a pure function of logits, metrics, state and keys, static under jit."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
from jaxtyping import Array, Float, Int, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.settings.probes import Probes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplerOutput:
    """Result of one draw per row.

    Attributes:
      token: drawn token of each row.
      state: sampler state of each row, for its next draw.
      quadrant: decision for each row, an index into `schema.QUADRANTS`; None from a sampler that decides nothing.
    """

    token: Int[Array, " B"]
    state: Any = None
    quadrant: Int[Array, " B"] | None = None


class Sampler(Protocol):
    """A hashable object that draws one token per row. Subclasses inherit defaults for everything but `__call__`."""

    @property
    def needs(self) -> Probes:
        """Metrics that a draw reads, from the groups output, attention and dispersion.

        The step computes them for the sampler even if the trace does not record them.
        """
        return Probes.none()

    @property
    def decides(self) -> bool:
        """True if each draw has a quadrant; the trace then records it."""
        return False

    def init(self, batch: int, vocab: int) -> Any:
        """Return the state of rows that have drawn nothing: a pytree of arrays with the rows first, or None."""
        return None

    def __call__(
        self, logits: Float[Array, "B V"], keys: Key[Array, " B"], metrics: StepTrace, state: Any
    ) -> SamplerOutput:
        """Draw a token for each row; a row's token must not depend on the other rows.

        Args:
          logits: raw logits, float32. A few columns beyond the vocabulary may follow, at −1e30.
          keys: random key of each row, used for this draw only.
          metrics: metrics that the sampler needs, [B, …], for the layers that `needs` selects.
          state: state of each row, from its last draw or from `init`.
        """
        ...
