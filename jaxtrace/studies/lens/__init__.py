"""Lens: which answers, and which models, do profiles through the layers tell apart (arXiv 2502.16570)?"""
