"""Figures, pages and summaries of traces."""

from jaxtrace.figures.page import write_report
from jaxtrace.figures.plots import attention_map, entropy_steps, layer_profile, lens_profile, write_plots
from jaxtrace.figures.summary import summary_table

__all__ = [
    "attention_map",
    "entropy_steps",
    "layer_profile",
    "lens_profile",
    "summary_table",
    "write_plots",
    "write_report",
]
