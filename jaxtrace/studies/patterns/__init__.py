"""Patterns: attention entropy of answers under different conditions (after keell0renz/llm-entropy-patterns)."""

from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.registry import Study

STUDY = Study(
    name="patterns",
    summary="Compare attention entropy by condition: factual or creative, right or wrong, at the first wrong step.",
    settings=PatternsConfig,
    run="jaxtrace.studies.patterns.compute:run_study",
    example="jaxtrace study patterns --config configs/studies/patterns.yaml --out studies/patterns",
)
