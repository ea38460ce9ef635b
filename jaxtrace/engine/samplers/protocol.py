"""What a sampler is: a pure function of logits, metrics, a state and keys of its rows, static under jit."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
from jaxtyping import Array, Float, Int, Key

from jaxtrace.engine.measure import StepTrace
from jaxtrace.settings.probes import Probes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a sampler gives back.

    Attributes:
      token: of each row.
      state: of each row, for its next draw.
      quadrant: what was decided for each row, a number of `schema.QUADRANTS`; None of a sampler that decides nothing.
    """

    token: Int[Array, " B"]
    state: Any = None
    quadrant: Int[Array, " B"] | None = None


class Sampler(Protocol):
    """Anything hashable that draws one token per row; one that inherits from it has defaults for all but the draw."""

    @property
    def needs(self) -> Probes:
        """The metrics that a draw looks at, of the groups output, attention and dispersion.

        The step computes them for it where they are not recorded.
        """
        return Probes.none()

    @property
    def decides(self) -> bool:
        """Whether its draws have a quadrant, which is then recorded."""
        return False

    def init(self, batch: int, vocab: int) -> Any:
        """The state of rows that have drawn nothing: a pytree of arrays with the rows first, or None."""
        return None

    def __call__(self, logits: Float[Array, "B V"], keys: Key[Array, " B"], metrics: StepTrace, state: Any) -> Drawn:
        """Draws a token for each row, as it would for the row alone.

        Args:
          logits: float32. Beyond the vocabulary there may be a few more, at −1e30.
          keys: of each row, for this draw alone.
          metrics: what it needs, [B, …]; of the layers that `needs` chooses.
          state: of each row, from its last draw or `init`.
        """
        ...
