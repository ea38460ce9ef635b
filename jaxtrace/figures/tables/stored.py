"""Contents of a stored trace."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from jaxtrace.figures.tables.parts import named_values
from jaxtrace.memory import format_bytes
from jaxtrace.traces import StoredTrace


def stored_table(trace: StoredTrace) -> Table:
    """Return the runs, prompts, tokens and bytes of a stored trace; only the footers of its files are read."""
    runs, first = trace.runs, trace.runs[0]
    prompts, tokens, layers = (table.count_rows() for table in (trace.prompts, trace.tokens, trace.layers))
    size = sum(run.size for run in runs)
    complete = sum(run.info["complete"] for run in runs)
    rows = {"trace": str(first.root)} | ({"runs": str(len(runs))} if len(runs) > 1 else {})
    for key in dict.fromkeys(key for run in runs for key in run.keys):
        counts = Counter(run.keys[key] for run in runs if key in run.keys)
        rows[key] = ", ".join(f"{value} ({count})" for value, count in counts.items())
    rows |= {key: str(trace.info[key]) for key in ("model", "mode") if key in trace.info and key not in rows}
    rows |= {
        "complete": ("yes" if complete else "no") if len(runs) == 1 else f"{complete} of {len(runs)} runs",
        "prompts": f"{prompts:,}",
        "tokens": f"{tokens:,}, and {layers:,} rows of tokens and layers",
        "precision": ", ".join(sorted({run.precision for run in runs})),
        "on the disk": format_bytes(size) + (f", {format_bytes(size / tokens)} per token" if tokens else ""),
    }
    return named_values(rows)
