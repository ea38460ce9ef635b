"""Sweeps: many runs from one file (models × tasks × samplers × seeds × probes) in one dataset."""

from jaxtrace.sweeping.cells import Cell, read_sweep
from jaxtrace.sweeping.estimate import CellEstimate, Machine, estimate_sweep
from jaxtrace.sweeping.running import Sweep, Watch, open_sweep

__all__ = ["Cell", "CellEstimate", "Machine", "Sweep", "Watch", "estimate_sweep", "open_sweep", "read_sweep"]
