"""The one palette, as two themes, and panels drawn in a theme (no pyplot, no global rcParams)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from jaxtrace.errors import visible

# Okabe and Ito's palette for colour-blind readers; grey in place of black, and a yellow that shows on white.
PALETTE = ("#009e73", "#cc79a7", "#999999", "#b59f00", "#56b4e9", "#e69f00", "#0072b2", "#d55e00")
DOTS: dict[str, Any] = {"marker": "o", "markersize": 3}
# Colours of the five `schema.QUADRANTS`, of the same hues as the report page's .c0 to .c4.
QUADRANT_COLOURS = ("#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#e6c229")


@dataclass(frozen=True)
class Theme:
    """Colours of a figure or page.

    Attributes:
      paper: background.
      ink: titles and labels.
      faint: ticks, frames, notes.
      grid: grid lines.
      first, second: colours of the first two lines.
      cmap: colour map of heat maps.
    """

    paper: str
    ink: str
    faint: str
    grid: str
    first: str
    second: str
    cmap: str = "cividis"

    @property
    def lines(self) -> tuple[str, ...]:
        """Colours of up to eight lines, `first` and `second` first."""
        return self.first, self.second, *(colour for colour in PALETTE if colour not in (self.first, self.second))


LIGHT = Theme(paper="#ffffff", ink="#1c2126", faint="#5c656e", grid="#e4e7ea", first="#0072b2", second="#d55e00")
DARK = Theme(paper="#171b20", ink="#e6e9ec", faint="#9aa4ae", grid="#2c333a", first="#56b4e9", second="#e69f00")


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """Return an empty figure of `width` × `height` inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), dpi=160, layout=layout, facecolor=theme.paper)


def new_panel(theme: Theme, width: float, height: float, title: str, x: str = "", y: str = "") -> tuple[Figure, Axes]:
    """Return a figure of one panel, and its dressed axes."""
    figure = new_figure(theme, width, height)
    axes = figure.subplots()
    dress(axes, theme, title, x, y)
    return figure, axes


def dress(axes: Axes, theme: Theme, title: str = "", x: str = "", y: str = "") -> None:
    """Give the axes the theme's colours, a title on the left, and axis labels."""
    axes.set_facecolor(theme.paper)
    axes.set_title(visible(title), loc="left", fontsize=9.5, fontweight="bold", color=theme.ink, parse_math=False)
    axes.set_xlabel(visible(x), fontsize=9, color=theme.ink, parse_math=False)
    axes.set_ylabel(visible(y, keep="\n"), fontsize=9, color=theme.ink, parse_math=False)
    axes.tick_params(colors=theme.faint, labelsize=8, length=3)
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)
        spine.set_linewidth(0.7)


def heat_map(
    axes: Axes, theme: Theme, values: np.ndarray, unit: str, extent: tuple[float, float, float, float] | None = None
) -> None:
    """Draw layers [rows, columns] as colours, the first one at the bottom, with a colour bar; NaN stays blank.

    A legend of the figure says how many layers are blank.
    """
    axes.grid(False)
    if not np.isfinite(values).any():
        note_missing(axes, theme)
    elif (gaps := _gaps(values.T, "blank")) and (figure := axes.get_figure(root=True)) and not figure.legends:
        patch = Patch(facecolor=theme.paper, edgecolor=theme.faint, label=gaps)
        figure.legend(handles=[patch], loc="outside lower left", frameon=False, fontsize=8, labelcolor=theme.ink)
    image = axes.imshow(values, aspect="auto", origin="lower", interpolation="nearest", cmap=theme.cmap, extent=extent)
    colour_bar(axes, theme, image, unit)
    axes.xaxis.set_major_locator(whole_numbers())
    axes.yaxis.set_major_locator(whole_numbers())


def colour_bar(axes: Axes, theme: Theme, image: AxesImage, unit: str = "") -> None:
    """Add a frameless colour bar for an image in the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=24)
    bar.ax.tick_params(colors=theme.faint, labelsize=8, length=3)
    bar.set_label(unit, fontsize=9, color=theme.ink)
    bar.outline.set_visible(False)


def label_gaps(axes: Axes, x: ArrayLike, values: ArrayLike) -> bool:
    """Add to the legend how many layers leave a gap, and keep room for them; return False if none does.

    Args:
      x: place of each layer [layers], ascending.
      values: values of the layers [..., layers].
    """
    if gaps := _gaps(np.asarray(values, float), "gap"):
        axes.plot([], [], linestyle="none", label=gaps)
        first, *_, last = np.asarray(x, float)
        axes.set_xlim(first - 0.05 * (last - first), last + 0.05 * (last - first))
    return bool(gaps)


def _gaps(values: np.ndarray, word: str) -> str:
    """Return the text on layers without values [..., layers]; "" if all have some, or none has."""
    layers, missing = values.shape[-1], np.isnan(values).reshape(-1, values.shape[-1]).all(0).sum()
    return f"{word}: {missing} of {layers} layers have no values" if 0 < missing < layers else ""


def point_marker(values: ArrayLike) -> dict[str, Any]:
    """Return the marker of a line through values [x]: dots if a value has no neighbour, which no line would show."""
    return DOTS if _between_gaps(values).any() else {}


def fill_band(
    axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, *, color: str, alpha: float, label: str | None = None
) -> None:
    """Fill the band between two lines [x]; where a value has no neighbour, draw a bar."""
    x, low, high = (np.asarray(each) for each in (x, low, high))
    axes.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0, label=label)
    if (lone := _between_gaps(low)).any():
        axes.vlines(x[lone], low[lone], high[lone], color=color, alpha=alpha, linewidth=5)


def _between_gaps(values: ArrayLike) -> np.ndarray:
    """Return True for each of some values [x] that is finite and has no finite neighbour."""
    finite = np.pad(np.isfinite(np.asarray(values, float)), 1)
    return finite[1:-1] & ~finite[:-2] & ~finite[2:]


def note_missing(axes: Axes, theme: Theme, text: str = "no finite values") -> None:
    """Write in the middle of empty axes why nothing is drawn there."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, color=theme.faint)


def legend(axes: Axes, theme: Theme) -> None:
    """Add a frameless legend in the theme's ink, if a line has a label; a dollar sign in a label stays one."""
    if not axes.get_legend_handles_labels()[1]:
        return
    for text in axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink, handlelength=1.6).get_texts():
        text.set_parse_math(False)
        text.set_text(visible(text.get_text()))


def whole_numbers() -> MaxNLocator:
    """Return a locator that puts ticks at whole numbers only."""
    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 4, 5, 10])
