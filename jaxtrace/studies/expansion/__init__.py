"""Expansion: which layers widen the next-token prediction and which prune it (arXiv 2502.16570 v3)."""
