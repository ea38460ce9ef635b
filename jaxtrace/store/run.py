"""What lies in a trace directory: `run.json`, and numbered parts of three tables.

run.json                    what made the trace, and whether it is complete
tokens/part-00000.parquet   one row per prompt and step
layers/part-00000.parquet   one row per prompt, step and layer
prompts/part-00000.parquet  one row per prompt; written last, so a part with this file is whole
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from jaxtrace.errors import StoreError

FORMAT = 1
RUN = "run.json"


def read_run(directory: Path) -> dict[str, Any]:
    """Reads `run.json`.

    Raises:
      StoreError: there is none, it is broken, or its format is not the one this version reads.
    """
    path = directory / RUN
    try:
        run = json.loads(path.read_bytes())
        if run["format"] != FORMAT:
            raise StoreError(
                f"{path}: format {run['format']}, and this version reads format {FORMAT}; "
                "open it with the version of jaxtrace that wrote it"
            )
        return {key: run[key] for key in ("format", "complete", "created", "info", "config")}
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{directory}: not a trace directory, it has no {RUN}; name one that does") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; make it readable") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a description of a run; restore it from a copy") from error


def write_run(directory: Path, run: dict[str, Any]) -> None:
    """Writes `run.json`, whole or not at all."""
    with atomic(directory / RUN) as file:
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


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes its name only when it is whole and on the disk.

    Until then it is called `.NAME.tmp`: readers of a directory of Parquet files leave out names with a dot.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
