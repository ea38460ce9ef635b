"""Traces in memory and on disk, as Parquet that any tool reads. A trace directory holds

run.json                    description of the run, and whether it is complete
tokens/part-00000.parquet   one row per prompt and step
layers/part-00000.parquet   one row per prompt, step and layer
prompts/part-00000.parquet  one row per prompt; written last, so a part with this file is complete

A dataset of many runs has one partition per run: its tables in directories such as
tokens/model=demo/task=quiz/run=0/, and its description in runs/model=demo/task=quiz/run=0/run.json.
"""

from jaxtrace.traces.reader import StoredRun, StoredTrace, is_trace, open_trace
from jaxtrace.traces.run_json import partition_of
from jaxtrace.traces.writer import TraceWriter

__all__ = ["StoredRun", "StoredTrace", "TraceWriter", "is_trace", "open_trace", "partition_of"]
