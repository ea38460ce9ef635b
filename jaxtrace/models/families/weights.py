"""What a family's weight table is made of."""

from __future__ import annotations

from dataclasses import dataclass

ParamPath = tuple[str | int, ...]  # into the parameters: ("layers", 3, "attention", "q")


@dataclass(frozen=True)
class Weight:
    """One line of a weight table: which stored tensor, or which part of it, fills a parameter.

    Attributes:
      name: the checkpoint's name; "{}" stands for the layer number.
      path: the parameter's place; "{}" stands for the layer number.
      transposed: the matrix is stored [in, out].
      part: (i, n) where the tensor holds n parameters one after the other along its outputs, and this is the i-th.
    """

    name: str
    path: tuple[str, ...]
    transposed: bool = False
    part: tuple[int, int] = (0, 1)

    def at(self, layer: int) -> tuple[str, ParamPath]:
        """The line for one layer (0-based)."""
        return self.name.format(layer), tuple(layer if part == "{}" else part for part in self.path)

    @property
    def per_layer(self) -> bool:
        """Whether the line stands for one weight in every layer."""
        return "{}" in self.path
