"""What jaxtrace costs, beside what transformers costs: run as `python -m benchmarks.decode`."""
