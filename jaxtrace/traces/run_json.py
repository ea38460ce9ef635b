"""What `run.json` says: what made a trace, and whether it is complete."""

import json
import math
from typing import Any
from urllib.parse import quote, unquote

from jaxtrace.errors import StoreError
from jaxtrace.traces.location import Location

FORMAT = 1
RUN = "run.json"
RUNS = "runs"  # holds those of a dataset with partitions


def partition_of(**keys: Any) -> str:
    """The partition of a run that is one of many: "model=demo/task=quiz" of model="demo", task="quiz".

    What stands for something in a path is percent-encoded, as Hive does; pyarrow, Polars and DuckDB undo it.
    """
    return "/".join(f"{key}={quote(str(value), safe=' ')}" for key, value in keys.items())


def keys_of(partition: str) -> dict[str, str]:
    """The inverse of `partition_of`, as text."""
    pairs = (part.partition("=") for part in partition.split("/") if part)
    return {key: unquote(value) for key, _, value in pairs}


def run_path(root: Location, partition: str) -> Location:
    """Where the description of a run lies."""
    return root / f"{RUNS}/{partition}/{RUN}" if partition else root / RUN


def find_partitions(root: Location) -> list[str]:
    """Partitions of the runs that a directory holds: [""] for one run without, none for no run."""
    if root.fs.exists((root / RUN).path):
        return [""]
    return [path.removesuffix(f"/{RUN}") for path in (root / RUNS).files() if path.endswith(f"/{RUN}")]


def read_run(root: Location, partition: str = "") -> dict[str, Any]:
    """Reads a run's description.

    Raises:
      StoreError: there is none, it is broken, or its format is not the one this version reads.
    """
    path = run_path(root, partition)
    try:
        run = json.loads(path.fs.cat_file(path.path))
        if run["format"] != FORMAT:
            raise StoreError(
                f"{path}: format {run['format']}, and this version reads format {FORMAT}; "
                "open it with the version of jaxtrace that wrote it"
            )
        found = {key: run[key] for key in ("format", "complete", "created", "info", "config")}
        return found | {
            "precision": run.get("precision", "float32"),
            "metrics_version": run.get("metrics_version", 1),
        }
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{root}: not a trace directory, it has no {RUN}; name one that does") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; make it readable") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a description of a run; restore it from a copy") from error


def write_run(root: Location, partition: str, run: dict[str, Any]) -> None:
    """Writes a run's description, whole or not at all."""
    with run_path(root, partition).writing() as file:
        file.write((json.dumps(run, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def plain(value: Any) -> Any:
    """What JSON can hold of `value`: arrays and tuples become lists; inf and NaN become "inf" and "nan"."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
