"""Pages: the templates they are made from, with all text escaped, and figures that lie in them."""

import base64
import functools
import io
from pathlib import Path

import jinja2
from matplotlib.figure import Figure


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {
        "separators": (",", ":"),
        "ensure_ascii": False,
        "allow_nan": False,
        "sort_keys": False,
    }
    return environment


def template(name: str) -> jinja2.Template:
    """A template of this folder."""
    return _environment().get_template(name)


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor())
    return buffer.getvalue()


def in_page(figure: Figure) -> str:
    """A figure as a page holds it: PNG in base64."""
    return base64.b64encode(png(figure)).decode()
