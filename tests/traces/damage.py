"""Ways to damage a stored run, and what reading it then gives."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxtrace.errors import StoreError
from jaxtrace.traces import StoredTrace, open_trace
from jaxtrace.traces.location import Location
from jaxtrace.traces.run_json import write_run

FORMAT_1 = Path(__file__).parents[1] / "goldens" / "format_1"  # written by jaxtrace 0.2, with raw material
OTHER_VALUES = (None, True, False, -1, 0, 1, 3, 10**30, 0.5, 1e300, "", "x", "3", [], {}, [1], [[1, 0]], {"a": 1})


def _rows(trace: StoredTrace) -> list:
    fields = ("prompt", "prompt_pieces", "pieces", "text", "stop", "prompt_steps")
    return [
        (
            [getattr(row, field) for field in fields],
            row.prompt_tokens.tobytes(),
            {name: (values.shape, values.tobytes()) for name, values in row.metrics.items()},
        )
        for row in trace.rows
    ]


def _arrays(trace: StoredTrace) -> dict:
    dataset = trace.to_xarray()
    return {name: (values.dims, values.shape, values.values.tobytes()) for name, values in dataset.variables.items()}


def _table(name: str) -> Callable[[StoredTrace], tuple]:
    def read(trace: StoredTrace) -> tuple:
        table = getattr(trace, name).to_table()
        return table.schema.names, table

    return read


READERS: dict[str, Callable[[StoredTrace], object]] = {
    "rows": _rows,
    "xarray": _arrays,
    "tokens": _table("tokens"),
    "layers": _table("layers"),
    "prompts": _table("prompts"),
    "columns": lambda trace: (trace.texts, trace.lengths, trace.prompt_steps),
}


def read_all(root: Path) -> dict[str, object]:
    """Return what each reader gives, or the message of its one-line StoreError."""
    results: dict[str, object] = {}
    for name, read in READERS.items():
        try:
            results[name] = read(open_trace(root))
        except StoreError as error:
            assert "\n" not in str(error)
            results[name] = error
    return results


def info_of(root: Path) -> object:
    """Return the description of a run; None if it is refused."""
    try:
        (run,) = open_trace(root).runs
    except StoreError:
        return None
    return run.info, run.config, run.precision, run.metrics_version


def outcome(got: dict[str, object], want: dict[str, object]) -> str:
    """Return "identical", "refused" (by at least one reader), or which readers give other data."""
    others = [name for name in want if not isinstance(got[name], StoreError) and got[name] != want[name]]
    if others:
        return f"different: {', '.join(others)}"
    return "refused" if any(isinstance(result, StoreError) for result in got.values()) else "identical"


def edit_run(root: Path, change: Callable[[dict], object]) -> None:
    """Change the description of a run in place as its writer would have written it."""
    run = json.loads((root / "run.json").read_text(encoding="utf-8"))
    run.pop("sha256", None)
    change(run)
    write_run(Location.of(root), "", run)


def mutated_documents(text: str, rng: np.random.Generator, count: int) -> Iterator[str | bytes]:
    """Yield damaged forms of a JSON document: values, keys and bytes, in random places."""
    places = list(_places(json.loads(text)))
    for _ in range(count):
        run = json.loads(text)
        *path, last = places[rng.integers(len(places))]
        parent = run
        for key in path:
            parent = parent[key]
        kind = rng.integers(12)
        if kind < 7:
            parent[last] = OTHER_VALUES[rng.integers(len(OTHER_VALUES))]
            yield json.dumps(run)
        elif kind == 7:
            del parent[last]
            yield json.dumps(run)
        elif kind == 8:
            parent[last] = "MARK"
            marks = ("NaN", "-Infinity", "1e999", '"\\ud800"', "[" * 100_000, "9" * 5_000, '{"a": 1, "a": 2}', "")
            yield json.dumps(run).replace('"MARK"', marks[rng.integers(len(marks))])
        elif kind == 9:
            yield text[: rng.integers(len(text))]
        elif kind == 10:
            content = bytearray(text.encode())
            content[rng.integers(len(content))] = rng.integers(128, 256)
            yield bytes(content)
        else:
            depth = int(rng.integers(2, 3_000))
            parent[last] = "MARK"
            yield json.dumps(run).replace('"MARK"', "[" * depth + "]" * depth)


def _places(value: object, path: tuple = ()) -> Iterator[tuple]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in entries:
        yield (*path, key)
        yield from _places(child, (*path, key))
