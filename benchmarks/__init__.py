"""Benchmarks of jaxtrace against transformers; run one as `python -m benchmarks.decode`."""
