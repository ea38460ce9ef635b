"""Traces on disk: Parquet that any tool reads, and back. A trace directory holds

run.json                    what made the trace, and whether it is complete
tokens/part-00000.parquet   one row per prompt and step
layers/part-00000.parquet   one row per prompt, step and layer
prompts/part-00000.parquet  one row per prompt; written last, so a part that has this file is whole
"""

from jaxtrace.store.reader import open_trace
from jaxtrace.store.writer import TraceWriter, save

__all__ = ["TraceWriter", "open_trace", "save"]
