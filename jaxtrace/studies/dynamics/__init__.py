"""Trace-level dynamics (arXiv 2604.03589): how uncertainty moves while a model answers."""
