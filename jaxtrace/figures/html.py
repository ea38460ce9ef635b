"""HTML pages: templates that escape all text, and figures embedded as PNG."""

import base64
import functools
import io
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from jaxtrace.figures.theme import DARK, LIGHT


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(light=LIGHT, dark=DARK)
    environment.policies["json.dumps_kwargs"] = {
        "separators": (",", ":"),
        "ensure_ascii": False,
        "allow_nan": False,
        "sort_keys": False,
    }
    return environment


def template(name: str) -> jinja2.Template:
    """Return a template of this folder."""
    return _environment().get_template(name)


def png(figure: Figure, dpi: float | str = "figure") -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def embedded_png(figure: Figure) -> str:
    """Return a figure as base64 PNG, for a data URL."""
    return base64.b64encode(png(figure)).decode()
