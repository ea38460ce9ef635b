"""Quantised tensors of safetensors files, and how parts of them are dequantised."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from jaxtrace.checkpoints.safetensors import TensorReader

SCALES = ("F32", "F16", "BF16", "F8_E8M0", "U8")  # U8 holds the bytes of F8_E8M0
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
# Values of each byte. Looking them up is several times faster than ml_dtypes' casts.
FP8_VALUES = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
FP4_VALUES = np.stack([np.tile(FP4, 16), np.repeat(FP4, 16)], axis=-1).view(np.complex64)[:, 0]  # low bits, high bits
GROUP = 32  # MXFP4 values that share a scale

Ranges = tuple[tuple[int, int], ...]  # (start, end) of every axis


@dataclass(frozen=True)
class Fp8Tensor:
    """A tensor of 8-bit floats that is multiplied by a scale for each block.

    Attributes:
      shape: shape of the tensor.
      values, scale: names of the stored floats and scales.
      grid: shape of the scales: the number of blocks on each axis.
      blocks: size of a block on each axis; the last block of an axis may be smaller.
      lone: True if there is one scale, which may be stored with any number of axes.
    """

    shape: tuple[int, ...]
    values: str
    scale: str
    grid: tuple[int, ...]
    blocks: tuple[int, ...]
    lone: bool
    dtype = "F32"

    @classmethod
    def of(cls, stored: TensorReader, name: str, block: tuple[int, int] | None) -> Fp8Tensor:
        """Return a stored tensor with a scale for each block of its last two axes; for None, with one scale."""
        shape = stored.shape(name)
        blocks = tuple(max(1, size) for size in shape) if block is None else (*[1] * (len(shape) - 2), *block)
        grid = tuple(-(-size // each) for size, each in zip(shape, blocks, strict=False))
        return cls(shape, name, f"{name}_scale_inv", grid, blocks, lone=block is None)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Names of the stored tensors, unused activation scales included: of x.weight, or of experts.gate_up_proj."""
        module = self.values.removesuffix("weight")
        return self.values, self.scale, f"{module}activation_scale", f"{module}_activation_scale"

    def problem(self, stored: TensorReader, names: Container[str]) -> str | None:
        """Return how the stored tensors do not fit the format; None if they fit."""
        if stored.dtype(self.values) != "F8_E4M3" or len(self.shape) < 2:
            return f"{self.values} is {_stored_as(stored, self.values)}, not F8_E4M3 of two or more axes"
        if self.scale in names and self.lone and {*stored.shape(self.scale)} <= {1}:
            return _scale_problem(stored, self.scale, names, stored.shape(self.scale))
        return _scale_problem(stored, self.scale, names, self.grid)

    def read(self, stored: TensorReader, ranges: Ranges) -> np.ndarray:
        """Return a part of the tensor."""
        part = FP8_VALUES[stored.read(self.values, _slices(ranges)).view(np.uint8)]
        grid = tuple((start // size, -(-end // size)) for (start, end), size in zip(ranges, self.blocks, strict=True))
        scale_ranges = tuple((0, 1) for _ in stored.shape(self.scale)) if self.lone else grid
        scales = _read_scales(stored, self.scale, scale_ranges).reshape([end - start for start, end in grid])
        (row, _), (column, end) = ranges[-2:]
        first = grid[-1][0] * self.blocks[-1]
        scales = scales.repeat(self.blocks[-1], axis=-1)[..., column - first : end - first]
        for block in range(scales.shape[-2]):  # repeating the scales over rows too would take the memory of the part
            start = (grid[-2][0] + block) * self.blocks[-2] - row
            part[..., max(0, start) : start + self.blocks[-2], :] *= scales[..., block : block + 1, :]
        return part


@dataclass(frozen=True)
class Mxfp4Tensor:
    """A tensor of 4-bit floats, each group of which is multiplied by a power of two.

    The groups run along the inputs. transformers holds the matrices of experts as [expert, input, output], so these are
    transposed; another matrix is [output, input].

    Attributes:
      shape: shape of the tensor.
      values, scale: names of the stored groups and scales.
      grid: shape of the scales, and of the groups without the axis of their bytes.
    """

    shape: tuple[int, ...]
    values: str
    scale: str
    grid: tuple[int, ...]
    dtype = "BF16"

    @classmethod
    def of(cls, stored: TensorReader, values: str, scale: str) -> Mxfp4Tensor:
        """Return the tensor of stored groups."""
        grid = stored.shape(values)[:-1]
        *experts, outputs, groups = (1, 1, *grid)[-max(2, len(grid)) :]
        shape = (*experts, groups * GROUP, outputs) if experts else (outputs, groups * GROUP)
        return cls(shape, values, scale, grid)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Names of the stored tensors."""
        return self.values, self.scale

    def problem(self, stored: TensorReader, names: Container[str]) -> str | None:
        """Return how the stored tensors do not fit the format; None if they fit."""
        if stored.dtype(self.values) != "U8" or len(self.grid) not in (2, 3) or stored.shape(self.values)[-1] != 16:
            return f"{self.values} is {_stored_as(stored, self.values)}, not U8 of shape [(experts,) rows, groups, 16]"
        return _scale_problem(stored, self.scale, names, self.grid)

    def read(self, stored: TensorReader, ranges: Ranges) -> np.ndarray:
        """Return a part of the tensor."""
        experts = len(self.shape) == 3
        (start, end), outputs = ranges[-2:] if experts else ranges[::-1]
        grid = (*ranges[:-2], outputs, (start // GROUP, -(-end // GROUP)))
        part = FP4_VALUES[stored.read(self.values, _slices((*grid, (0, GROUP // 2))))].view(np.float32)
        part *= _read_scales(stored, self.scale, grid)[..., None]
        first = grid[-1][0] * GROUP
        part = part.reshape(*part.shape[:-2], -1)[..., start - first : end - first].astype(ml_dtypes.bfloat16)
        return part.swapaxes(-1, -2) if experts else part


def _scale_problem(stored: TensorReader, name: str, names: Container[str], shape: tuple[int, ...]) -> str | None:
    if name not in names:
        return f"{name} is missing"
    if stored.shape(name) != shape or stored.dtype(name) not in SCALES:
        return f"{name} is {_stored_as(stored, name)}, not {', '.join(SCALES)} of shape {list(shape)}"
    return None


def _stored_as(stored: TensorReader, name: str) -> str:
    return f"{stored.dtype(name)} of shape {list(stored.shape(name))}"


def _slices(ranges: Ranges) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in ranges)


def _read_scales(stored: TensorReader, name: str, ranges: Ranges) -> np.ndarray:
    """Return scales as float32."""
    scales = stored.read(name, _slices(ranges))
    return (scales.view(ml_dtypes.float8_e8m0fnu) if scales.dtype == np.uint8 else scales).astype(np.float32)
