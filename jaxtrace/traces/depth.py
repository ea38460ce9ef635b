"""The layer from which the lens agrees with the model."""

from collections.abc import Sequence

import numpy as np

from jaxtrace.traces.layers import present_layers
from jaxtrace.traces.row import Row


def prediction_depth(lens_top1: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """Return the first of the layers whose top-1 token equals the last layer's and stays so, for each step.

    Args:
      lens_top1: int [steps, layers], top-1 tokens of the lens.
      layers: number of each layer, ascending.

    Returns:
      Float [steps], layer numbers.
    """
    agrees = (lens_top1 == lens_top1[:, -1:])[:, ::-1]
    return np.array(layers, float)[len(layers) - np.cumprod(agrees, 1).sum(1)]


def row_prediction_depth(row: Row, layers: Sequence[int]) -> np.ndarray:
    """Return the prediction depth at each step of a row [steps], among the layers that have a lens.

    NaN where the last of these layers has no finite lens entropy, since the top-1 of NaN is any token.
    """
    top1, entropy = row.metrics["lens_top1"], row.metrics.get("lens_entropy")
    present = present_layers(row, "lens_top1")
    present &= True if entropy is None else present_layers(row, "lens_entropy")
    if not present.any():
        return np.full(row.length, np.nan)
    if not present.all():
        layers = [layer for layer, has_lens in zip(layers, present, strict=True) if has_lens]
    depth = prediction_depth(top1[:, present], layers)
    return depth if entropy is None else np.where(np.isfinite(entropy[:, present][:, -1]), depth, np.nan)
