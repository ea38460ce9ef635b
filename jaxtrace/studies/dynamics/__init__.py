"""Trace-level dynamics (arXiv 2604.03589): how uncertainty moves while a model answers."""

from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.registry import Study

STUDY = Study(
    name="dynamics",
    summary="Follow uncertainty while models answer: seven tables, classes, correlations (arXiv 2604.03589).",
    settings=DynamicsConfig,
    run="jaxtrace.studies.dynamics.compute:run_study",
    example="jaxtrace study dynamics --config configs/studies/dynamics-demo.yaml --out studies/dynamics",
    run_settings=("revision", "task", "data", "limit", "max_new_tokens", "compat_duplicate_last_prompt_token"),
)
