"""What a stored trace is, as a table for the terminal."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape
from rich.table import Table

from jaxtrace.figures.checkpoint import in_bytes, named_table
from jaxtrace.traces import StoredTrace


def stored_table(trace: StoredTrace) -> Table:
    """Its runs, prompts, tokens and bytes, found without reading more than the ends of files."""
    runs, first = trace.runs, trace.runs[0]
    prompts, tokens, layers = (table.count_rows() for table in (trace.prompts, trace.tokens, trace.layers))
    size = sum(run.size for run in runs)
    complete = sum(run.info["complete"] for run in runs)
    rows = {"trace": str(first.root)} | ({"runs": str(len(runs))} if len(runs) > 1 else {})
    for key in first.keys:
        counts = Counter(run.keys[key] for run in runs)
        rows[key] = ", ".join(f"{value} ({count})" for value, count in counts.items())
    rows |= {key: str(trace.info[key]) for key in ("model", "mode") if key in trace.info and key not in rows}
    rows |= {
        "complete": ("yes" if complete else "no") if len(runs) == 1 else f"{complete} of {len(runs)} runs",
        "prompts": f"{prompts:,}",
        "tokens": f"{tokens:,}, and {layers:,} rows of tokens and layers",
        "precision": ", ".join(sorted({run.precision for run in runs})),
        "on the disk": f"{in_bytes(size)}" + (f", {in_bytes(size / tokens)} per token" if tokens else ""),
    }
    return named_table({name: escape(value) for name, value in rows.items()})
