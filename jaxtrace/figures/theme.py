"""How the figures look: two themes and the panels drawn in them, with no pyplot and no global rcParams."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; the lines are from Okabe and Ito's palette for colour-blind readers.

    Attributes:
      paper: the background.
      ink: titles and labels.
      faint: ticks, frames, notes.
      grid: grid lines.
      first, second: the two line colours.
      cmap: the colour map of heat maps.
    """

    paper: str
    ink: str
    faint: str
    grid: str
    first: str
    second: str
    cmap: str = "cividis"


LIGHT = Theme(paper="#ffffff", ink="#1c2126", faint="#5c656e", grid="#e4e7ea", first="#0072b2", second="#d55e00")
DARK = Theme(paper="#171b20", ink="#e6e9ec", faint="#9aa4ae", grid="#2c333a", first="#56b4e9", second="#e69f00")


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), dpi=160, layout=layout, facecolor=theme.paper)


def dress(axes: Axes, theme: Theme, title: str = "", x: str = "", y: str = "") -> None:
    """Gives the axes the theme's colours, a title on the left and its labels."""
    axes.set_facecolor(theme.paper)
    axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=theme.ink, parse_math=False)
    axes.set_xlabel(x, fontsize=9, color=theme.ink, parse_math=False)
    axes.set_ylabel(y, fontsize=9, color=theme.ink, parse_math=False)
    axes.tick_params(colors=theme.faint, labelsize=8, length=3)
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)
        spine.set_linewidth(0.7)


def legend(axes: Axes, theme: Theme) -> None:
    """A frameless legend in the theme's ink; a dollar in a label is a dollar."""
    made = axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink, handlelength=1.6)
    for text in made.get_texts():
        text.set_parse_math(False)


def whole_numbers() -> MaxNLocator:
    """A locator that puts ticks at whole numbers only."""
    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 4, 5, 10])
