"""The layer from which the lens agrees with the model."""

from collections.abc import Sequence

import numpy as np


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
