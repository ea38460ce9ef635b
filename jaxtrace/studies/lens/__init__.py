"""Lens: which answers, and which models, do profiles through the layers tell apart (arXiv 2502.16570)?"""

from jaxtrace.studies.lens.settings import LensConfig
from jaxtrace.studies.registry import Study

STUDY = Study(
    name="lens",
    summary="Tell kinds of answers, or models, apart by a metric's profile through the layers (Entropy-Lens).",
    settings=LensConfig,
    run="jaxtrace.studies.lens.compute:run_study",
    example="jaxtrace study lens --config configs/studies/lens-demo.yaml --out studies/lens",
)
