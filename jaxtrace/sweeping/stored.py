"""What of a cell is in the dataset, whole."""

from __future__ import annotations

from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import TABLES, part_prompts, read_part, whole_parts


def stored_lengths(root: Location, partition: str) -> list[int] | None:
    """The number of steps of every prompt of a cell; None where one of its parts is cut short."""
    tables = {table: root / table / partition for table in TABLES}
    names = whole_parts({table: folder.names() for table, folder in tables.items()})
    if any(part_prompts(tables, name) is None for name in names):
        return None
    return [n for name in names for n in read_part(tables["prompts"] / name, ["length"])["length"].to_pylist()]
