"""Samplers: how ways of sampling change answers to the same prompts, and what they cost."""

from jaxtrace.studies.registry import Study
from jaxtrace.studies.samplers.settings import SamplersConfig

STUDY = Study(
    name="samplers",
    summary="Compare samplers on the same prompts: accuracy, entropy, length, quadrants, cost (Entropix).",
    settings=SamplersConfig,
    run="jaxtrace.studies.samplers.compute:run_study",
    example="jaxtrace study samplers --model demo --limit 12 --sampler greedy --sampler entropix",
)
