"""Layer × head maps as pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxtrace.figures.theme import LIGHT, Theme, dress, heat_map, new_figure

SIDE = 0.16  # inches of a cell in a large map


def head_map(
    values: Float[np.ndarray, "L N"], layers: Sequence[int], title: str, unit: str, theme: Theme = LIGHT
) -> UInt8[np.ndarray, "height width 3"]:
    """Return layer × head as colours, the first layer at the bottom; NaN is white."""
    rows, heads = values.shape
    figure = new_figure(theme, max(4.0, 1.6 + SIDE * heads), max(2.6, 0.9 + SIDE * rows))
    figure.set_dpi(100)
    axes = figure.subplots()
    dress(axes, theme, title, "head", "layer")
    heat_map(axes, theme, values, unit)
    axes.yaxis.set_major_formatter(lambda place, _: str(layers[int(place)]) if 0 <= place < rows else "")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
