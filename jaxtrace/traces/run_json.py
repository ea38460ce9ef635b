"""The file `run.json`: the description of a run, and whether it is complete.

Format 2 has an id, which each part of the run repeats, and a hash of the description. Format 1 has neither.
"""

import hashlib
import json
import math
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, unquote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from jaxtrace.documents import MAX_JSON, decode_json
from jaxtrace.errors import ConfigError, StoreError, reason_of
from jaxtrace.schema import STEP_METRICS
from jaxtrace.settings.prompt import StartMode
from jaxtrace.settings.validation import validated
from jaxtrace.traces.location import Location

FORMAT = 2
RUN = "run.json"
RUNS = "runs"  # directory of the descriptions in a dataset with partitions
RESTORE = "restore it from a copy"


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


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text).astimezone()
    except OverflowError:
        raise ValueError("it must be a time of these centuries") from None
    return text


def _distinct(values: list[Any]) -> list[Any]:
    repeated, times = Counter(json.dumps(value) for value in values).most_common(1)[0] if values else ("", 1)
    if times > 1:
        raise ValueError(f"{repeated} is there {times} times; it must be there once")
    return values


# Bounds are far beyond any model, and small enough that no range over them fills the memory.
Count = Annotated[int, Field(ge=1, le=10_000)]
Number = Annotated[int, Field(ge=0, le=10_000)]
Size = Annotated[int, Field(ge=1, le=2**63 - 1)]
Time = Annotated[str, AfterValidator(_time)]
Order = Annotated[
    float, Field(ge=0, allow_inf_nan=True), BeforeValidator(lambda value: math.inf if value == "inf" else value)
]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, defer_build=True)


class PromptFormat(_Strict):
    """Entries of `Trace.info["prompt_format"]` that are read again; others are kept."""

    template: str | None = None
    bos: StartMode = "auto"
    date: Time | None = None


class Cache(_Strict):
    """Entries of `Trace.info["cache"]`: layers with keys and values, and their sizes, by layer where they differ.

    `recurrent` are the bytes of a row's recurrent states, which do not grow with the tokens.
    """

    layers: list[Count]
    kv_heads: Count | list[Count]
    head_dim: Count | list[Count]
    bytes: Count
    recurrent: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None

    @model_validator(mode="after")
    def _one_size_per_layer(self) -> Self:
        for name in ("kv_heads", "head_dim"):
            sizes = getattr(self, name)
            if isinstance(sizes, list) and len(sizes) != len(self.layers):
                raise ValueError(
                    f"{name} has {len(sizes)} sizes; it must have one for each of {len(self.layers)} layers"
                )
        return self


class Info(_Strict):
    """Entries of `Trace.info`, as JSON; those of other versions of jaxtrace are kept.

    Attributes:
      alphas: orders of the Rényi entropies, infinity as "inf".
      probes: names of the recorded groups; None in a trace that was not recorded by a model.
      experts: number of chosen experts that are stored for each layer.
      step_metrics: names of recorded metrics of plug-ins; one whose plug-in is missing here is not read.
      layers_without: part that the model has ("attention", "experts") → layers without it, from 1, whose metrics of it
        are missing; {} in a trace of jaxtrace 0.3 and earlier.
      windows: number of positions that each layer's attention sees: a sliding window, {"chunk": size}, or None for all;
        None in a trace of jaxtrace 0.3 and earlier.
    """

    mode: Literal["generate", "score"]
    layers: Count
    heads: Count
    alphas: list[Order]
    probes: list[str] | None = None
    layer_stride: Count = 1
    lens_stride: Count | None = None
    lens_layers: Annotated[list[Count], AfterValidator(_distinct)] = []
    lens_every: Size = 1
    residuals: Annotated[list[Number], AfterValidator(_distinct)] = []
    top_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    top_k_mass: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    attention_rows: Annotated[
        list[Annotated[list[Number], Field(min_length=2, max_length=2)]], AfterValidator(_distinct)
    ] = []
    prompt_positions: bool = False
    lens_renyi: bool = False
    experts: Number = 0
    step_metrics: list[str] = []
    layers_without: dict[str, list[Count]] = {}
    windows: list[Size | dict[Literal["chunk"], Size] | None] | None = None
    batch_size: int | None = None
    cache: Cache | None = None
    checkpoint: str | None = None
    deterministic: bool | None = None
    dtype: str | None = None
    ignored_config: dict[str, Any] | None = None
    ignored_generation_settings: dict[str, Any] | None = None
    last_prompt_token_twice: bool | None = None
    left_out: dict[str, Any] | None = None
    lens: str | None = None
    max_new_tokens: int | None = None
    notes: list[str] | None = None
    prompt_format: PromptFormat | None = None
    prompts: str | None = None
    revision: str | None = None
    revision_name: str | None = None
    sampler: str | None = None
    seed: int | None = None
    stop: list[str] | None = None
    stop_repeats: int | None = None
    stop_tokens: list[int] | None = None
    versions: dict[str, str] | None = None

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        _distinct([f"{alpha:g}" for alpha in self.alphas])
        for name in ("residuals", "lens_layers"):
            if (largest := max(getattr(self, name), default=0)) > self.layers:
                raise ValueError(f"{name} has layer {largest}; it must be at most layers, {self.layers}")
        if self.windows is not None and len(self.windows) != self.layers:
            raise ValueError(
                f"windows has {len(self.windows)} entries; it must have one for each of {self.layers} layers"
            )
        for layer, head in self.attention_rows:
            if not (1 <= layer <= self.layers and head < self.heads):
                raise ValueError(
                    f"attention_rows has head {head} of layer {layer}; there are {self.heads} heads and "
                    f"{self.layers} layers"
                )
        return self


class Description(_Strict):
    """Entries of `run.json`.

    Attributes:
      format: 2, or 1 of jaxtrace 0.1 and 0.2.
      id: random name of the run, which each of its parts repeats.
      parts: number of parts of a complete run.
      sha256: hash of all other entries, see `_hash`.
    """

    model_config = ConfigDict(extra="forbid")

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    id: Annotated[str, Field(min_length=1)] | None = None
    complete: bool
    parts: Annotated[int, Field(ge=0)] | None = None
    created: Time
    precision: Literal["float32", "float16"] = "float32"
    metrics_version: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    info: Info
    config: dict[str, Any] | None
    sha256: str | None = None

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        for name in ("id", "parts", "sha256"):
            value = getattr(self, name)
            needed = self.format > 1 and (name != "parts" or self.complete)
            if needed != (value is not None) and (needed or self.format == 1):
                raise ValueError(
                    f"format is {self.format} and {name} is {json.dumps(value)}, so one of them was changed"
                )
        return self


def new_run(
    info: dict[str, Any], config: dict[str, Any] | None, precision: str, metrics_version: int
) -> dict[str, Any]:
    """Return the description of a run that begins now."""
    return {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "complete": False,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "precision": precision,
        "metrics_version": metrics_version,
        "info": to_json_value(info),
        "config": to_json_value(config),
    }


def read_run(root: Location, partition: str = "") -> dict[str, Any]:
    """Read a run's description.

    Raises:
      StoreError: the file is missing or damaged, or this version of jaxtrace does not read its format.
    """
    path = run_path(root, partition)
    try:
        content = path.read(MAX_JSON)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{root}: not a trace directory, it has no {RUN}; name one that does") from None
    except OSError as error:
        raise StoreError(f"{path}: {reason_of(error)}; make it readable") from error
    try:
        run = decode_json(content)
    except ValueError as error:
        raise _no_description(path, f"not valid JSON: {error}") from None
    if not isinstance(run, dict):
        raise _no_description(path, "not a JSON object")
    number = run.get("format")
    if type(number) is int and number > FORMAT:
        raise StoreError(
            f"{path}: has format {number!s:.20}, and this version reads formats 1 to {FORMAT}; "
            "open it with the version of jaxtrace that wrote it"
        )
    _check(run, path)
    if run["format"] > 1 and run["sha256"] != _hash(run):
        raise StoreError(f"{path}: its entries do not match its sha256, so one was changed; {RESTORE}")
    for name in run["info"].get("step_metrics", ()):
        STEP_METRICS.find(name)  # imports its plug-in, which adds it to the table of metrics
    return {"precision": "float32", "metrics_version": 1, "id": None, "parts": None} | run


def write_run(root: Location, partition: str, run: dict[str, Any]) -> None:
    """Write a run's description atomically.

    Raises:
      StoreError: an entry of its info cannot be read back.
    """
    path = run_path(root, partition)
    if run["format"] > 1:
        run = run | {"sha256": _hash(run)}
    else:
        run = {name: value for name, value in run.items() if name not in ("id", "parts")}
    _check(run, path, "correct Trace.info")
    with path.writing() as file:
        file.write((json.dumps(run, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _check(run: dict[str, Any], path: Location, advice: str = RESTORE) -> None:
    try:
        validated(Description, run, str(path))
    except ConfigError as error:
        problem = str(error)
        if problem.endswith("is missing; give it"):
            reason = problem.removeprefix(f"{path}: ").removesuffix("; give it")
            raise _no_description(path, reason, advice) from None
        raise StoreError(f"{problem}; {advice}") from None


def _no_description(path: Location, reason: str, advice: str = RESTORE) -> StoreError:
    return StoreError(f"{path}: not a description of a run; {advice} ({reason})")


def _hash(run: dict[str, Any]) -> str:
    """Return the SHA-256 of a description's entries except "sha256", as JSON without spaces and with sorted keys."""
    entries = {key: value for key, value in run.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
