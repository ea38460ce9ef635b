"""Figures, pages and summaries of traces."""

from jaxtrace.report.page import write_report
from jaxtrace.report.plots import attention_map, entropy_steps, layer_profile, lens_profile, write_plots
from jaxtrace.report.summary import summary_table

__all__ = [
    "attention_map",
    "entropy_steps",
    "layer_profile",
    "lens_profile",
    "summary_table",
    "write_plots",
    "write_report",
]
