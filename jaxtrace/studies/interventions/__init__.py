"""Interventions: what a model loses without its expanding or pruning layers (arXiv 2502.16570 v3)."""

from jaxtrace.studies.interventions.settings import InterventionsConfig
from jaxtrace.studies.registry import Study

STUDY = Study(
    name="interventions",
    summary="Skip the layers that widen or prune the prediction most, and random ones (Entropy-Lens).",
    settings=InterventionsConfig,
    run="jaxtrace.studies.interventions.compute:run_study",
    example="jaxtrace study interventions --model Qwen/Qwen2.5-0.5B --task mmlu --limit 200",
    run_settings=("revision", "task", "data", "limit"),
)
