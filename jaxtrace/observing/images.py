"""Maps of heads as pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxtrace.figures.theme import LIGHT, Theme, dress, new_figure, whole_numbers

SIDE = 0.16  # inches of a cell, where the map gets large


def head_map(
    values: Float[np.ndarray, "L N"], layers: Sequence[int], title: str, unit: str, theme: Theme = LIGHT
) -> UInt8[np.ndarray, "height width 3"]:
    """Layer × head as colours, the first layer below; white where there is no value."""
    rows, heads = values.shape
    figure = new_figure(theme, max(4.0, 1.6 + SIDE * heads), max(2.6, 0.9 + SIDE * rows))
    figure.set_dpi(100)
    axes = figure.subplots()
    dress(axes, theme, title, "head", "layer")
    axes.grid(False)
    image = axes.imshow(values, aspect="auto", origin="lower", interpolation="nearest", cmap=theme.cmap)
    axes.xaxis.set_major_locator(whole_numbers())
    axes.yaxis.set_major_locator(whole_numbers())
    axes.yaxis.set_major_formatter(lambda place, _: str(layers[int(place)]) if 0 <= place < rows else "")
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=24)
    bar.ax.tick_params(colors=theme.faint, labelsize=8, length=3)
    bar.set_label(unit, fontsize=9, color=theme.ink)
    bar.outline.set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
