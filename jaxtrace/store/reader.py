"""A trace directory as a `Trace`."""

from pathlib import Path

from jaxtrace.store.parts import TABLES, read_part, whole_parts
from jaxtrace.store.run import read_run
from jaxtrace.store.tables import from_tables
from jaxtrace.tracing.trace import Trace


def open_trace(directory: str | Path) -> Trace:
    """Reads a trace back, exactly; of a run that was cut off, whatever it finished.

    Args:
      directory: what `Trace.save` or `TraceWriter` wrote.

    Returns:
      The rows in the order of their prompts. `info` is as it was written, with tuples as lists, and with
      "complete": False where the run did not reach its end. `meta` of a prompt has lists for tuples too.

    Raises:
      StoreError: not a trace directory, one of another format, or a damaged file; one line that names it.
    """
    directory = Path(directory)
    run = read_run(directory)
    info = run["info"] | {"complete": run["complete"]}
    if "alphas" in info:
        info["alphas"] = [float(alpha) for alpha in info["alphas"]]
    rows = []
    for name in whole_parts(directory):
        rows += from_tables({table: read_part(directory / table / name) for table in TABLES}, info)
    rows.sort(key=lambda pair: pair[0])
    return Trace([row for _, row in rows], info)
