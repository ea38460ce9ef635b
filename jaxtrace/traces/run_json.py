"""The file `run.json`: the description of a run, and whether it is complete."""

import json
import math
from typing import Any
from urllib.parse import quote, unquote

from jaxtrace.errors import StoreError
from jaxtrace.traces.location import Location

FORMAT = 1
RUN = "run.json"
RUNS = "runs"  # directory of the descriptions in a dataset with partitions


def partition_of(**keys: Any) -> str:
    """Return the partition of a run in a dataset: "model=demo/task=quiz" for model="demo", task="quiz".

    Special characters of paths are percent-encoded, as Hive does; pyarrow, Polars and DuckDB decode them.
    """
    return "/".join(f"{key}={quote(str(value), safe=' ')}" for key, value in keys.items())


def partition_keys(partition: str) -> dict[str, str]:
    """Return the keys of a partition, as text; the inverse of `partition_of`."""
    pairs = (part.partition("=") for part in partition.split("/") if part)
    return {key: unquote(value) for key, _, value in pairs}


def run_path(root: Location, partition: str) -> Location:
    """Return the location of a run's description."""
    return root / f"{RUNS}/{partition}/{RUN}" if partition else root / RUN


def find_partitions(root: Location) -> list[str]:
    """Return the partitions of a directory's runs: [""] for a single run without a partition, [] for no run."""
    if (root / RUN).exists():
        return [""]
    return [path.removesuffix(f"/{RUN}") for path in (root / RUNS).files() if path.endswith(f"/{RUN}")]


def read_run(root: Location, partition: str = "") -> dict[str, Any]:
    """Read a run's description.

    Raises:
      StoreError: the file is missing or damaged, or this version of jaxtrace does not read its format.
    """
    path = run_path(root, partition)
    try:
        run = json.loads(path.fs.cat_file(path.path))
        if run["format"] != FORMAT:
            raise StoreError(
                f"{path}: has format {run['format']}, and this version reads format {FORMAT}; "
                "open it with the version of jaxtrace that wrote it"
            )
        return {key: run[key] for key in ("format", "complete", "created", "info", "config")} | {
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
    """Write a run's description atomically."""
    with run_path(root, partition).writing() as file:
        file.write((json.dumps(run, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def to_json_value(value: Any) -> Any:
    """Convert a value for JSON: arrays and tuples become lists, inf and NaN become "inf" and "nan"."""
    if isinstance(value, dict):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json_value(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
