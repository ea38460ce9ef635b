"""`jaxtrace study NAME`: a module for each study."""

from jaxtrace.cli.study import dynamics, expansion, interventions, lens, patterns, samplers  # noqa: F401
from jaxtrace.cli.study.common import study_app

__all__ = ["study_app"]
