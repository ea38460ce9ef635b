"""Lines of a family's weight table."""

from __future__ import annotations

from dataclasses import dataclass

ParamPath = tuple[str | int, ...]  # path in the parameters, such as ("layers", 3, "attention", "q")


@dataclass(frozen=True)
class Weight:
    """One line of a weight table: the stored tensor, or the part of one, that fills a parameter.

    Attributes:
      name: name of the tensor in the checkpoint; "{}" stands for the layer number.
      path: path of the parameter; "{}" stands for the layer number.
      transposed: True if the matrix is stored [in, out].
      part: position of the parameter among those that the tensor concatenates along its outputs, from 0.
      by_head: True if the tensor concatenates the parameters head by head: head 0 of each one, then head 1 of each one.
    """

    name: str
    path: tuple[str, ...]
    transposed: bool = False
    part: int = 0
    by_head: bool = False

    def at(self, layer: int) -> tuple[str, ParamPath]:
        """Return the tensor's name and the parameter's path in one layer (0-based)."""
        return self.name.format(layer), tuple(layer if part == "{}" else part for part in self.path)

    @property
    def per_layer(self) -> bool:
        """True if the line describes one weight in every layer."""
        return "{}" in self.path
