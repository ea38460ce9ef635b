"""Estimates with intervals, built on NumPy and SciPy; imports only the errors of jaxtrace."""
