"""Interventions: what a model loses without its expanding or pruning layers (arXiv 2502.16570 v3)."""
