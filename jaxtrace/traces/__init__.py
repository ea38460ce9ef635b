"""Traces on disk: Parquet that any tool reads, and back. A trace directory holds

run.json                    what made the trace, and whether it is complete
tokens/part-00000.parquet   one row per prompt and step
layers/part-00000.parquet   one row per prompt, step and layer
prompts/part-00000.parquet  one row per prompt; written last, so a part that has this file is whole

A dataset of many runs holds the tables of each in a partition such as tokens/model=demo/task=quiz/run=0/, and what made
them in runs/model=demo/task=quiz/run=0/run.json.
"""

from jaxtrace.traces.reader import StoredRun, StoredTrace, is_trace, open_trace
from jaxtrace.traces.run_json import partition_of
from jaxtrace.traces.writer import TraceWriter, save

__all__ = ["StoredRun", "StoredTrace", "TraceWriter", "is_trace", "open_trace", "partition_of", "save"]
