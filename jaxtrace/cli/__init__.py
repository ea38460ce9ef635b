"""The command line: a module for each verb, or a few that belong together; each calls the library."""

from jaxtrace.cli import trace, sweep, plan, show, convert  # noqa: F401, I001 (verbs are listed in this order)
from jaxtrace.cli.app import app, console, main

__all__ = ["app", "console", "main"]
