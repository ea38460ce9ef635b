"""Analyses over stored traces: one folder per study, listed in `registry.py`."""
