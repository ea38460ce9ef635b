"""Lines of a family's weight table."""

from __future__ import annotations

from dataclasses import dataclass

ParamPath = tuple[str | int, ...]  # path in the parameters, such as ("layers", 3, "attention", "q")


@dataclass(frozen=True)
class Weight:
    """One line of a weight table: the stored tensor, or the part of one, that fills a parameter.

    Attributes:
      name: name of the tensor in the checkpoint; "{}" stands for the layer number, and "{expert}" for the number of an
        expert, where each expert has a tensor of its own.
      path: path of the parameter; "{}" stands for the layer number.
      transposed: True if the matrix is stored [in, out].
      part: position of the parameter among those that the tensor concatenates along its outputs, from 0.
      by_head: True if the tensor concatenates the parameters head by head: head 0 of each one, then head 1 of each one;
        without heads, output by output.
      paired: True if rotary positions turn neighbouring outputs of a head, 2i and 2i + 1, which are i and i + H/2 in
        the parameter.
    """

    name: str
    path: tuple[str, ...]
    transposed: bool = False
    part: int = 0
    by_head: bool = False
    paired: bool = False

    def at(self, layer: int, expert: int = 0) -> tuple[str, ParamPath]:
        """Return the tensor's name and the parameter's path in one layer (0-based)."""
        path = tuple(layer if part == "{}" else part for part in self.path)
        return self.name.format(layer, expert=expert), path

    @property
    def of_experts(self) -> bool:
        """True if the parameter holds the weights of all experts, on its first axis."""
        return "experts" in self.path

    @property
    def per_expert(self) -> bool:
        """True if each expert has a tensor of its own."""
        return "{expert}" in self.name

    @property
    def per_layer(self) -> bool:
        """True if the line describes one weight in every layer."""
        return "{}" in self.path
