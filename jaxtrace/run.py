"""A traced run from one validated configuration: what the command line does, as a library call."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import jax
import numpy as np
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from jaxtrace.checkpoints.embedded import demo_prompts
from jaxtrace.checkpoints.huggingface import Checkpoint
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.engine.encode import encode
from jaxtrace.engine.gather import OnProgress
from jaxtrace.engine.samplers import Dslider, Entropix, Greedy, Sample, Sampler, pause_token
from jaxtrace.engine.samplers.quadrants import TABLES
from jaxtrace.engine.settings import Settings
from jaxtrace.errors import ConfigError
from jaxtrace.files import read_yaml
from jaxtrace.model import DEMO, Model, open_model_checkpoint, open_random_model
from jaxtrace.models.config import DecoderConfig
from jaxtrace.parallel.automatic import AUTO
from jaxtrace.parallel.processes import as_first, barrier, in_turn, of_several
from jaxtrace.settings.probes import DEFAULT_ALPHAS, OPTIONS, Probes
from jaxtrace.tasks import Prompt, load_task
from jaxtrace.traces import TraceWriter, open_trace
from jaxtrace.traces.trace import Row, Trace

Numbered = list[tuple[int, Row]]  # rows, each with the number of its prompt in the run
OnRows = Callable[[Numbered], None]
Encoded = list[tuple[Prompt, np.ndarray]]  # prompts beside their token ids

PART_SECONDS = 2.0  # between the parts of a run: what a kill may cost, and what spares small files

T = TypeVar("T", bound=BaseModel)
SOURCES = ("task", "prompts", "text")
HOW = {"out", "mesh", "batch_size"}  # settings that say how a run is made, and not what comes of it
SAMPLING = ("temperature", "top_p", "top_k", "min_p")
LONE = BeforeValidator(lambda value: (value,) if isinstance(value, str | Path) else value)  # one where several may be
# "0,8" as 0 and 8; "3:2,5:0" as (3, 2) and (5, 0).
LISTED = BeforeValidator(lambda value: [x.strip() for x in value.split(",")] if isinstance(value, str) else value)


def _paired(value: Any) -> Any:
    pairs = value.split(",") if isinstance(value, str) else value
    return [pair.split(":") if isinstance(pair, str) else pair for pair in pairs]


PAIRED = BeforeValidator(_paired)


class RunConfig(BaseModel):
    """Every setting of a run. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(DEMO, description="checkpoint directory, hub id, published name, or 'demo'")
    task: str | None = Field(None, description="a task of jaxtrace.tasks")
    data: Path | None = Field(None, description="the task's data file; the hub's copy without it")
    prompts: Path | None = Field(None, description="a prompt file: .txt, .jsonl or .csv")
    text: Annotated[tuple[str, ...], LONE] = Field((), description="prompts given here")
    image: Annotated[tuple[Path, ...], LONE] = Field((), description="an image for each text, for a model that sees")
    limit: int | None = Field(None, ge=1, description="trace this many prompts at most")
    samples: int = Field(1, ge=1, description="go on from every prompt so many times, each drawn for itself")
    score: bool = Field(False, description="trace the texts themselves instead of continuing them")
    raw: bool = Field(False, description="no chat template")
    probes: Annotated[tuple[str, ...], LISTED] = Field(("all",), description="groups of metrics")
    alphas: tuple[float, ...] = Field(DEFAULT_ALPHAS, description="orders of the Rényi entropies")
    layer_stride: int = Field(1, ge=1, description="metrics of layers are of every so many-th layer")
    residuals: Annotated[tuple[int, ...], LISTED] = Field((), description="layers whose residual stream is kept")
    top_tokens: int = Field(0, ge=0, description="so many of the likeliest tokens are kept, with log-probabilities")
    attention_rows: Annotated[tuple[tuple[int, int], ...], PAIRED] = Field(
        (), description="layer:head pairs whose attention weights are kept"
    )
    prompt_positions: bool = Field(False, description="measure the prompt's own positions too")
    lens_renyi: bool = Field(False, description="Rényi entropies of every layer's prediction too")
    lens: Path | None = Field(None, description="directory of a tuned lens of the model; the logit lens without it")
    precision: Literal["float32", "float16"] = Field("float32", description="of floats on the disk")
    batch_size: int = Field(16, ge=1)
    max_new_tokens: int = Field(64, ge=1)
    stop_repeats: int = Field(0, ge=0, description="this many identical tokens end a row; 0 never")
    compat_duplicate_last_prompt_token: bool = Field(
        False, description="feed the prompt's last token twice, as Algorithm 1 of arXiv 2604.03589 does"
    )
    sampler: Literal["greedy", "sample", "entropix", "dslider"] = "greedy"
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    thresholds: Literal["classic", "server"] = Field("classic", description="entropix's version of its rule")
    pause: str | None = Field(
        None, description="entropix's and dslider's pause token: text or id; ' ...' where that is one token"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler, of random weights and of random prompts")
    random: bool = Field(False, description="random weights of the model's shape, and random prompts if none are given")
    mesh: str | None = Field(AUTO, description="devices to split the model over, such as data=1,model=8; null for one")
    out: str | Path | None = Field(None, description="directory or URL of the trace; runs/MODEL-TIME without it")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        sources = self.sources
        if len(sources) > 1:
            raise ValueError(f"{' and '.join(sources)} exclude each other; keep one")
        if not sources and not self.random and self.model != DEMO:
            raise ValueError("nothing to trace: give a task, a prompts file, or a text")
        if self.image and len(self.image) != len(self.text):
            raise ValueError(f"{len(self.image)} images for {len(self.text)} texts; give one image for each text")
        if self.data and not self.task:
            raise ValueError("data belongs to a task; name the task too")
        changed = [name for name in SAMPLING if getattr(self, name) != type(self).model_fields[name].default]
        if self.sampler != "sample" and changed:
            raise ValueError("temperature, top_p, top_k and min_p need sampler 'sample'")
        if self.sampler != "entropix" and self.thresholds != "classic":
            raise ValueError("thresholds need sampler 'entropix'")
        if self.sampler not in ("entropix", "dslider") and self.pause is not None:
            raise ValueError("pause needs sampler 'entropix' or 'dslider'")
        if self.score and (self.sampler != "greedy" or self.stop_repeats):
            raise ValueError("score draws nothing: leave sampler and stop_repeats out")
        if self.score and self.prompt_positions:
            raise ValueError("score measures every position: leave prompt_positions out")
        if self.score and self.compat_duplicate_last_prompt_token:
            raise ValueError("score feeds texts as they are: leave compat_duplicate_last_prompt_token out")
        if self.samples > 1 and self.sampler == "greedy":
            raise ValueError("samples would all be the same: they need sampler 'sample', 'entropix' or 'dslider'")
        _ = self.recorded
        return self

    @property
    def sources(self) -> list[str]:
        """Where its prompts are said to come from."""
        return [name for name in SOURCES if getattr(self, name)]

    @property
    def recorded(self) -> Probes:
        """What it records."""
        return Probes.of(*self.probes, **{name: getattr(self, name) for name in OPTIONS})

    def settings(self, stop_tokens: tuple[int, ...], tokenizer: Tokenizer | None) -> Settings:
        """Settings of the engine; raises ConfigError where `pause` is no token of the model's tokenizer."""
        sampler: Sampler = Greedy()
        if self.sampler == "sample":
            sampler = Sample(self.temperature, self.top_k, self.top_p, self.min_p)
        elif self.sampler == "entropix":
            sampler = Entropix(TABLES[self.thresholds], pause_token(tokenizer, self.pause))
        elif self.sampler == "dslider":
            sampler = Dslider(pause=pause_token(tokenizer, self.pause))
        return Settings(
            probes=self.recorded,
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
            sampler=sampler,
            stop_tokens=stop_tokens,
            stop_repeats=self.stop_repeats,
            seed=self.seed,
        )

    def load_prompts(self) -> list[Prompt]:
        """The prompts of its task, file, texts, or the demo's own, each as often as asked; raises PromptError."""
        return self.repeated(self._load_prompts())

    def repeated(self, prompts: list[Prompt]) -> list[Prompt]:
        """Each as often as it is to be continued, under names of their own."""
        if self.samples == 1:
            return prompts
        return [replace(one, id=f"{one.id}-sample-{i}") for one in prompts for i in range(self.samples)]

    def _load_prompts(self) -> list[Prompt]:
        if self.text:
            images = [(str(image),) for image in self.image] or [()] * len(self.text)
            pairs = enumerate(zip(self.text, images, strict=True))
            return [Prompt(text=text, id=f"text-{i}", images=some) for i, (text, some) in pairs][: self.limit]
        if self.prompts:
            return load_task("prompts", self.prompts, self.limit)
        if self.task:
            return load_task(self.task, self.data, self.limit)
        return demo_prompts()[: self.limit]

    def directory(self) -> str | Path:
        """Where its trace goes."""
        return self.out or Path("runs") / f"{Path(self.model).name}-{datetime.now():%Y%m%d-%H%M%S}"


def run_config(file: Path | None = None, **overrides: Any) -> RunConfig:
    """A RunConfig from a YAML file and fields that override it.

    Raises:
      ConfigError: the file cannot be read, or a field is unknown or out of range; one line that names it.
    """
    fields = {} if file is None else read_yaml(file)
    if any(overrides.get(source) for source in SOURCES):
        fields = {name: v for name, v in fields.items() if name not in (*SOURCES, "data", "image")}
    if overrides.get("sampler", "sample") != "sample":
        fields = {name: v for name, v in fields.items() if name not in SAMPLING}
    return validated(RunConfig, {**fields, **overrides}, str(file or "settings"))


def validated(kind: type[T], fields: dict[str, Any], place: str) -> T:
    """A pydantic model of some fields; ConfigError with one line that names the place and the first wrong field."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"no such setting; there are: {', '.join(kind.model_fields)}"
        raise ConfigError(f"{place}: {where + ': ' if where else ''}{message}") from None


@dataclass(frozen=True)
class Run:
    """A run that is ready to go: model loaded, prompts encoded, directory open.

    Attributes:
      config: of the run.
      directory: where the trace goes, or the dataset that it is a part of.
      total: prompts in all.
      done: prompts that were already there (a resumed run).
      layers: those that it traces.
    """

    config: RunConfig
    directory: str | Path
    total: int
    done: int
    layers: tuple[int, ...]
    _batches: Callable[[OnProgress], Iterator[Numbered]]
    _writer: TraceWriter

    def write(self, on_progress: OnProgress = lambda *_: None, on_rows: OnRows = lambda _: None) -> None:
        """Runs to the end; rows are let go once they are written.

        They go to the disk in parts of one batch's size or several, every few seconds; where a run is cut off, so does
        what is finished of the next.

        Args:
          on_progress: called with (new prompts, new tokens, sum of their entropies) as the run goes on.
          on_rows: called with the rows of each part, once they are on the disk.
        """
        rows: Numbered = []
        size, latest = max(1, self.config.batch_size // jax.process_count()), -math.inf
        with self._writer as writer:

            def put(count: int) -> None:
                part = rows[:count]
                writer.write(part)
                del rows[:count]
                on_rows(part)

            try:
                for batch in self._batches(on_progress):
                    rows += batch
                    if len(rows) >= size and time.monotonic() - latest >= PART_SECONDS:
                        put(len(rows) // size * size)
                        latest = time.monotonic()
            finally:
                if rows:
                    put(len(rows))
            barrier("the parts of all processes are written")

    def trace(self, on_progress: OnProgress = lambda *_: None, on_rows: OnRows = lambda _: None) -> Trace:
        """Runs to the end as `write` does, and opens the whole trace."""
        self.write(on_progress, on_rows)
        return open_trace(self.directory)


def prepare(config: RunConfig, *, resume: bool = False) -> Run:
    """Loads the model, encodes the prompts and opens the directory, so that what is wrong shows before work starts.

    Raises:
      JaxtraceError: any of it fails.
    """
    if resume and config.out is None:
        raise ConfigError("resume: no directory to go on with; name the run's with --out")
    if of_several() is not None and config.out is None:
        raise ConfigError("several processes write one trace; name its directory, which all of them see, with --out")
    checkpoint = open_config_model(config)
    encoded = encode_prompts(config, checkpoint)
    model = Model.of(checkpoint, mesh=config.mesh)
    return start(config, checkpoint, model, encoded, config.directory(), resume=resume)


def start(
    config: RunConfig,
    checkpoint: Checkpoint | RandomCheckpoint,
    model: Model,
    encoded: Encoded,
    root: str | Path,
    *,
    resume: bool = False,
    partition: str = "",
) -> Run:
    """Opens the directory of a run whose parts are at hand.

    Args:
      config: of the run.
      checkpoint, model: its model, opened and loaded.
      encoded: its prompts, from `encode_prompts`.
      root: directory of the trace, or directory or URL of the dataset that it is a part of.
      resume: go on with the run there, if there is one.
      partition: its place in that dataset; see `TraceWriter`.

    Raises:
      StoreError: the directory cannot be written, or holds another run.
    """
    if (rows := min(config.batch_size, len(encoded))) < jax.process_count():
        raise ConfigError(
            f"{rows} rows at once for {jax.process_count()} processes leave some with none to write; "
            "raise batch_size, or start fewer"
        )
    model = model.with_lens(config.lens)
    hashes = {"checkpoint": checkpoint.fingerprint(), "prompts": hash_prompts(encoded)}
    settings = config.settings(model.stop_tokens, model.tokenizer)
    fed = {"mesh": config.mesh, "last_prompt_token_twice": config.compat_duplicate_last_prompt_token}
    info = model.info("score" if config.score else "generate", settings) | hashes | fed
    stored = config.model_dump(mode="json", exclude=HOW)
    place = {"resume": resume, "partition": partition, "process": of_several(), "precision": config.precision}
    writer = in_turn(lambda: TraceWriter(root, info, stored, **place))
    # As process 0 sees it: a shared disk may show the others less, for a while.
    done = as_first(np.isin(np.arange(len(encoded)), list(writer.done)))
    missing = np.flatnonzero(~done).tolist()
    rows_of = model.score_rows if config.score else model.generate_rows

    def batches(on_progress: OnProgress) -> Iterator[Numbered]:
        return rows_of([encoded[i] for i in missing], settings, on_progress, missing)

    layers = settings.probes.layers(model.config)
    return Run(config, root, len(encoded), int(done.sum()), layers, batches, writer)


def open_config_model(config: RunConfig) -> Checkpoint | RandomCheckpoint:
    """The checkpoint of a run's model, its weights still on disk; raises CheckpointError and ConfigError."""
    found = open_random_model(config.model, config.seed) if config.random else open_model_checkpoint(config.model)
    config.recorded.check(found.config)
    return found


def encode_prompts(config: RunConfig, checkpoint: Checkpoint | RandomCheckpoint) -> Encoded:
    """The prompts of a run beside their token ids; raises PromptError."""
    if config.sources or not config.random:
        prompts = config.load_prompts()
    else:
        prompts = config.repeated(_random_prompts(checkpoint.config, config.seed)[: config.limit])
    chat = not (config.raw or config.score)
    last_twice = config.compat_duplicate_last_prompt_token
    return encode(prompts, checkpoint.name, checkpoint.config, checkpoint.tokenizer, chat=chat, last_twice=last_twice)


def hash_prompts(encoded: Encoded) -> str:
    """Of what is fed: the token ids, and the images."""
    digest = hashlib.sha256(json.dumps([tokens.tolist() for _, tokens in encoded]).encode())
    for prompt, _ in encoded:
        for image in prompt.images:
            digest.update(image.tobytes() if isinstance(image, Image.Image) else Path(image).read_bytes())
    return digest.hexdigest()


def _random_prompts(config: DecoderConfig, seed: int) -> list[Prompt]:
    """A few prompts of token ids that mean nothing, about images that show nothing where the model sees."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(config.vocab, size=(4, min(32, config.context)))
    images = ()
    if config.vision is not None and config.image_token is not None:
        size = config.vision.image_size
        images = (Image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8)),)
        ids[:, 0] = config.image_token
    return [Prompt(tokens=tuple(row), images=images, id=f"random-{i}") for i, row in enumerate(ids.tolist())]
