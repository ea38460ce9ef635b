"""What a family's weight table is made of."""

from __future__ import annotations

from dataclasses import dataclass

ParamPath = tuple[str | int, ...]  # into the parameters: ("layers", 3, "attention", "q")


@dataclass(frozen=True)
class Weight:
    """One line of a weight table.

    Attributes:
      name: the checkpoint's name; "{}" stands for the layer number.
      path: the parameter's place; "{}" stands for the layer number.
    """

    name: str
    path: tuple[str, ...]

    def at(self, layer: int) -> tuple[str, ParamPath]:
        """The line for one layer (0-based)."""
        return self.name.format(layer), tuple(layer if part == "{}" else part for part in self.path)

    @property
    def per_layer(self) -> bool:
        """Whether the line stands for one weight in every layer."""
        return "{}" in self.path
