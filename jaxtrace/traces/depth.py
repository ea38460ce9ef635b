"""From which layer on a lens says what the model says."""

from collections.abc import Sequence

import numpy as np


def prediction_depth(lens_top1: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """First of some layers whose top-1 is the last one's and stays so: [steps, layers] → float [steps]."""
    agrees = (lens_top1 == lens_top1[:, -1:])[:, ::-1]
    return np.array(layers, float)[len(layers) - np.cumprod(agrees, 1).sum(1)]
