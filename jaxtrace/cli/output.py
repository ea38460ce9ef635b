"""The consoles of the command line, which obey no text, and the one line that an error becomes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from jaxtrace.errors import one_line, visible


class PlainConsole(Console):
    """Console for texts of models, files and servers: no markup, and control characters are escaped.

    Texts are escaped where they become rich's own, so that tables are laid out with what is shown, and once more where
    they are printed.
    """

    def __init__(self, **options: Any) -> None:
        """Take the options of rich's console."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich's text, escaped."""
        return super().render_str(visible(text, keep="\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of an object to print, escaped; codes of the console's own, such as of a bar, stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, keep="\n"), style, control)


console = PlainConsole()
errors = PlainConsole(stderr=True)


def say(text: object, style: str | None = None, to: Console = console) -> None:
    """Print one line as it is, without wrapping or markup; what a terminal would obey is escaped."""
    to.print(visible(text), style=style, soft_wrap=True)


def fail(message: str, status: int) -> NoReturn:
    """Print one line on standard error and end with an exit status."""
    say(f"jaxtrace: {one_line(message)}", "red", errors)
    raise SystemExit(status)
