"""Expansion: which layers widen the next-token prediction and which prune it (arXiv 2502.16570 v3)."""

from jaxtrace.studies.expansion.settings import ExpansionConfig
from jaxtrace.studies.registry import Study

STUDY = Study(
    name="expansion",
    summary="Find the layers that widen the prediction and those that prune it (Entropy-Lens).",
    settings=ExpansionConfig,
    run="jaxtrace.studies.expansion.compute:run_study",
    example="jaxtrace study expansion --model demo --limit 12 --out studies/expansion",
    run_settings=("revision", "task", "data", "limit"),
)
