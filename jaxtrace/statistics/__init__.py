"""Estimates with intervals: thin over SciPy and scikit-learn; imports nothing of jaxtrace but its errors."""
