"""The command line: a module for each verb, or a few that belong together; each calls the library."""

from jaxtrace.cli import trace, sweep, plan, show, grade, lens, convert  # noqa: F401, I001 (verbs are listed in this order)
from jaxtrace.cli.app import app, console, main
from jaxtrace.cli.confidence import confidence_app
from jaxtrace.cli.lab import lab_app
from jaxtrace.cli.study import study_app

app.add_typer(study_app, name="study")
app.add_typer(confidence_app, name="confidence")
app.add_typer(lab_app, name="lab")

__all__ = ["app", "console", "main"]
