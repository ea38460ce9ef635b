"""A traced run: model, prompts and settings in, a stored trace out; `jaxtrace trace` as a library call."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxtrace import interrupts
from jaxtrace.checkpoints.embedded import demo_prompts
from jaxtrace.checkpoints.generation import ignored_settings
from jaxtrace.checkpoints.huggingface import Checkpoint
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.compilation import Compilations, counted
from jaxtrace.engine.encode import EncodedPrompts, encode
from jaxtrace.engine.loop import compile_generation
from jaxtrace.engine.metric_buffer import OnProgress
from jaxtrace.engine.samplers import Dslider, Entropix, Greedy, Sample, Sampler, pause_token, plugin_sampler
from jaxtrace.engine.samplers.entropix import check_pause
from jaxtrace.engine.samplers.quadrants import TABLES
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.step import check_attention
from jaxtrace.engine.stop_strings import check_stop
from jaxtrace.errors import ConfigError, StoreError, StudyError, few
from jaxtrace.files import path_exists
from jaxtrace.lock import WriteLock
from jaxtrace.model import Model, find_stop_strings, open_model_checkpoint, open_random_model
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.parallel.processes import (
    barrier,
    broadcast_from_leader,
    is_leader,
    leader_first,
    process_number,
    raise_together,
    time_of_leader,
)
from jaxtrace.settings.run import EXECUTION_FIELDS, SAMPLING_FIELDS, RunConfig
from jaxtrace.settings.run import run_config as run_config
from jaxtrace.tasks import Prompt, load_task
from jaxtrace.tasks.selection import choose
from jaxtrace.traces import TraceWriter, open_trace
from jaxtrace.traces.location import Location
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.row import Row
from jaxtrace.traces.run_json import read_run
from jaxtrace.traces.trace import Trace

NumberedRows = list[tuple[int, Row]]  # rows, each with the number of its prompt in the run
OnRows = Callable[[NumberedRows], None]

PART_SECONDS = 2.0  # least time between two parts on the disk: bounds what a kill loses, and avoids small files


@dataclass(frozen=True)
class Run:
    """A prepared run: model loaded, prompts encoded, directory open.

    Attributes:
      config: settings of the run.
      directory: directory or URL of the trace, or of the dataset that it is a part of.
      total: number of prompts.
      done: number of prompts that a resumed run found finished.
      layers: recorded layers, from 1.
      headline: one line that says what the run does: model, dtype, template, prompts, stop tokens, sampler.
      compiled: compilations so far; the stored trace has them as `info["compiled"]`.
    """

    config: RunConfig
    directory: str | Path
    total: int
    done: int
    layers: tuple[int, ...]
    headline: str
    _batches: Callable[[OnProgress], Iterator[NumberedRows]]
    _writer: TraceWriter
    _lock: WriteLock | None = None
    compiled: Compilations = field(default_factory=Compilations)

    @property
    def lengths(self) -> dict[int, int]:
        """Number of steps of every stored prompt, by number; empty until the end, and in processes but the first."""
        return self._writer.lengths

    def write(self, on_progress: OnProgress = lambda *_: None, on_rows: OnRows = lambda _: None) -> None:
        """Execute the run to its end; rows leave memory once they are written.

        Every few seconds a part of one or several batches goes to the disk. Ctrl-C ends the run after a chunk of steps;
        the finished rows of its last part are then written too.

        Args:
          on_progress: called with (new prompts, new tokens, sum of their entropies) during the run.
          on_rows: called with the rows of each part, once they are on the disk.
        """
        rows: NumberedRows = []
        done, finished = len(self._writer.done), 0

        def on_chunk(prompts: int, tokens: int, entropy: float) -> None:
            nonlocal finished
            finished += prompts
            on_progress(prompts, tokens, entropy)

        def unsaved() -> bool:
            return bool(rows) or len(self._writer.done) - done < finished

        size, latest = max(1, self.config.batch_size // jax.process_count()), -math.inf
        locked, checked = self._lock or nullcontext(), interrupts.checked(unsaved)
        with locked, counted(self.compiled), checked, self._writer as writer:

            def put(count: int) -> None:
                part = rows[:count]
                writer.write(part)
                del rows[:count]
                on_rows(part)

            try:
                for batch in self._batches(on_chunk):
                    rows += batch
                    if len(rows) >= size and time.monotonic() - latest >= PART_SECONDS:
                        put(len(rows) // size * size)
                        latest = time.monotonic()
            finally:
                if rows:
                    put(len(rows))
            barrier("the parts of all processes are written")
            writer.compiled = self.compiled.as_json()

    @property
    def stored(self) -> int:
        """Number of prompts that are stored; of several processes, each knows its own and those of a resumed run."""
        return len(self._writer.done)

    def trace(self, on_progress: OnProgress = lambda *_: None, on_rows: OnRows = lambda _: None) -> Trace:
        """Execute the run to its end, as `write` does, and return the whole trace."""
        self.write(on_progress, on_rows)
        return open_trace(self.directory)


def prepare(config: RunConfig, *, resume: bool = False) -> Run:
    """Load the model, encode the prompts and open the directory, so that errors appear before any work.

    Args:
      config: settings of the run.
      resume: True to continue the run in `config.out`.

    Raises:
      JaxtraceError: a setting, the model, a prompt or the directory is unusable, or the model does not fit the memory.
    """
    if resume and config.out is None:
        raise ConfigError("resume needs the directory of a run; name it with --out")
    if process_number() is not None and config.out is None:
        raise ConfigError(
            "out is not set, and several processes write one trace; name a directory that they share with --out"
        )
    root = config.directory()
    with ExitStack() as stack:
        lock = lock_together(root)
        if lock is not None:
            stack.enter_context(lock)
        checkpoint = open_config_model(config)
        date = time_of_leader(_recorded_date(config.out) if resume and config.out else None)
        encoded = encode_prompts(config, checkpoint, date)
        with counted() as compiled:
            ahead = functools.partial(_compile_ahead, config, checkpoint, encoded, resume)
            options = {"dtype": config.dtype, "mesh": config.mesh, "before_reading": ahead}
            model = Model.from_checkpoint(checkpoint, **options)
            run = start(config, checkpoint, model, encoded, root, resume=resume, lock=lock)
        stack.pop_all()
    return replace(run, _lock=lock, compiled=compiled)


def _compile_ahead(
    config: RunConfig,
    checkpoint: Checkpoint | RandomCheckpoint,
    encoded: EncodedPrompts,
    resume: bool,
    params: Params,
) -> None:
    """Start to compile the first programs of a run while its weights are read; `params` are shapes.

    A tuned lens and a resumed run's prompts are not known yet, and texts to score run one program at a time.
    """
    if resume or config.score or config.lens or any(prompt.images for prompt, _ in encoded):
        return
    settings = engine_settings(config, checkpoint.stop_tokens, checkpoint.tokenizer)
    prompts = [ids for _, ids in encoded]
    strings = find_stop_strings(settings.stop, checkpoint.tokenizer, checkpoint.config.vocab_size)
    compile_generation(checkpoint.config, params, prompts, settings, strings)


def lock_together(root: str | Path) -> WriteLock | None:
    """Lock a directory for all processes of this program; the first one holds the lock, the others get None.

    Raises:
      StoreError: another program is writing the directory, or it cannot be written; in every process.
    """
    place = Location.of(root)
    return raise_together(lambda: WriteLock(root, place.fs, place.path) if is_leader() else None)


def start(
    config: RunConfig,
    checkpoint: Checkpoint | RandomCheckpoint,
    model: Model,
    encoded: EncodedPrompts,
    root: str | Path,
    *,
    resume: bool = False,
    partition: str = "",
    lock: WriteLock | None = None,
) -> Run:
    """Open the directory of a run whose model and prompts are loaded.

    Args:
      config: settings of the run.
      checkpoint: opened checkpoint of the model.
      model: loaded model.
      encoded: prompts, from `encode_prompts`.
      root: directory of the trace, or directory or URL of the dataset that it is a part of.
      resume: True to continue the run in the directory, if there is one.
      partition: place of the run in that dataset; see `TraceWriter`.
      lock: lock on `root` that the caller holds and frees; None takes one on the run until it ends.

    Raises:
      StoreError: the directory cannot be written, or holds another run.
    """
    if (rows := min(config.batch_size, len(encoded))) < jax.process_count():
        raise ConfigError(
            f"{rows} rows at once are fewer than the {jax.process_count()} processes; raise batch_size, or start fewer "
            "processes"
        )
    model = model.with_lens(config.lens)
    hashes = {"checkpoint": checkpoint.fingerprint(), "prompts": hash_prompts(encoded)}
    settings = engine_settings(config, model.stop_tokens, model.tokenizer)
    check_attention(model.config, settings.sampler.needs)
    ignored = _ignored_generation_settings(config, checkpoint)
    inputs = {
        "mesh": config.mesh,
        "last_prompt_token_twice": config.compat_duplicate_last_prompt_token,
        "ignored_generation_settings": ignored,
    }
    info = model.info("score" if config.score else "generate", settings) | hashes | inputs
    info["prompt_format"] = encoded.info
    stored, defaults = (each.model_dump(mode="json", exclude=EXECUTION_FIELDS) for each in (config, RunConfig()))
    options = {
        "defaults": defaults,
        "resume": resume,
        "partition": partition,
        "process": process_number(),
        "precision": config.precision,
        "prompts": len(encoded),
        "lock": lock,
    }
    writer = leader_first(lambda: TraceWriter(root, info, stored, **options))
    # Process 0 decides: a shared disk may show the other processes less for a while.
    done = broadcast_from_leader(np.isin(np.arange(len(encoded)), list(writer.done)))
    missing = np.flatnonzero(~done).tolist()
    rows_of = model.score_rows if config.score else model.generate_rows

    def batches(on_progress: OnProgress) -> Iterator[NumberedRows]:
        return rows_of([encoded[i] for i in missing], settings, on_progress, missing)

    layers = settings.probes.recorded_layers(model.config)
    headline = _headline(config, model, encoded, info)
    return Run(config, root, len(encoded), int(done.sum()), layers, headline, batches, writer)


def open_config_model(config: RunConfig) -> Checkpoint | RandomCheckpoint:
    """Open the checkpoint of a run's model, with its weights still on disk.

    Raises:
      CheckpointError: the checkpoint is missing or unreadable.
      ConfigError: the model lacks a layer, head or token that is to be recorded, the pause token, or a tokenizer for
        stop strings.
    """
    if config.random:
        checkpoint = open_random_model(config.model, config.seed, config.revision, config.ignore_config)
    else:
        checkpoint = open_model_checkpoint(config.model, config.revision, config.ignore_config)
    config.recorded.check(checkpoint.config)
    check_stop(config.stop, checkpoint.tokenizer)
    if config.pause is not None:
        check_pause(pause_token(checkpoint.tokenizer, config.pause), checkpoint.config.vocab_size)
    return checkpoint


def load_traced(trace: Trace, name: str | None = None) -> Model:
    """Load the model that made a trace.

    Args:
      name: checkpoint, hub id or name to load it by; None for what the trace stores.

    Raises:
      StudyError: the trace has runs of several models, or `name` is another model.
      CheckpointError: the checkpoint is missing or unreadable.
    """
    runs = trace.runs if isinstance(trace, StoredTrace) else ()
    models = {(str(run.info.get("model")), run.info.get("checkpoint")) for run in runs or (trace,)}
    if runs and len(models) > 1:
        known = few(sorted({model for model, _ in models}))
        raise StudyError(f"{runs[0].root}: has runs of several models ({known}); name the directory of one run")
    ((own, fingerprint),) = models
    commit = None if path_exists(own) else trace.info.get("revision")
    made = (runs[0].config if runs else None) or {"model": own, "revision": commit}
    names = (made["model"], made.get("revision")) if name is None else (name, None)
    ignored = tuple(made.get("ignore_config", ()))
    if made.get("random"):
        checkpoint = open_random_model(names[0], made["seed"], names[1], ignored)
    else:
        checkpoint = open_model_checkpoint(*names, ignored)
    if fingerprint is not None and checkpoint.fingerprint() != fingerprint:
        raise StudyError(f"{names[0]}: is not the model that made the trace, {own}; name that one with --model")
    return Model.from_checkpoint(checkpoint, dtype=trace.info.get("dtype"))


def engine_settings(config: RunConfig, stop_tokens: tuple[int, ...], tokenizer: Tokenizer | None) -> Settings:
    """Return the engine's settings of a run.

    Raises:
      ConfigError: `pause` is no token of the model's tokenizer.
    """
    sampler: Sampler = Greedy()
    if config.sampler == "sample":
        sampler = Sample(config.temperature, config.top_k, config.top_p, config.min_p)
    elif config.sampler == "entropix":
        sampler = Entropix(TABLES[config.thresholds], pause_token(tokenizer, config.pause))
    elif config.sampler == "dslider":
        sampler = Dslider(pause=pause_token(tokenizer, config.pause))
    elif config.sampler != "greedy":
        sampler = plugin_sampler(config.sampler, config.sampler_arg or {})
    return Settings(
        probes=config.recorded,
        batch_size=config.batch_size,
        deterministic=config.deterministic,
        matmul_precision=config.matmul_precision,
        max_new_tokens=config.max_new_tokens,
        sampler=sampler,
        stop_tokens=stop_tokens,
        stop_repeats=config.stop_repeats,
        stop=config.stop,
        seed=config.seed,
    )


def load_prompts(config: RunConfig, *, chat: bool = False) -> list[Prompt]:
    """Return a run's prompts, from its task, file or texts, or the demo's own, `samples` times each.

    Args:
      config: settings of the run.
      chat: True if a chat template will format them: few-shot examples are then turns of the chat.

    Raises:
      PromptError: the task is unknown, its data or a prompt is unusable, or the sample cannot be drawn.
    """
    if config.text:
        images = [(str(image),) for image in config.image] or [()] * len(config.text)
        pairs = enumerate(zip(config.text, images, strict=True))
        return _selected([Prompt(text=text, id=f"text-{i}", images=files) for i, (text, files) in pairs], config)
    if not (config.prompts or config.task):
        return _selected(demo_prompts(), config)
    name, data = ("prompts", config.prompts) if config.prompts else (config.task or "", config.data)
    choice = {"sample": config.sample, "seed": config.seed, "stratify": config.stratify}
    return _repeated(load_task(name, data, config.limit, **choice, shots=config.shots, chat=chat), config.samples)


def _selected(prompts: list[Prompt], config: RunConfig) -> list[Prompt]:
    chosen = choose(prompts[: config.limit], config.sample, config.seed, config.stratify)
    return _repeated(chosen, config.samples)


def _repeated(prompts: list[Prompt], samples: int) -> list[Prompt]:
    if samples == 1:
        return prompts
    return [replace(prompt, id=f"{prompt.id}-sample-{i}") for prompt in prompts for i in range(samples)]


def encode_prompts(
    config: RunConfig, checkpoint: Checkpoint | RandomCheckpoint | Model, date: datetime | None = None
) -> EncodedPrompts:
    """Return a run's prompts beside their token ids.

    Args:
      config: settings of the run.
      checkpoint: opened checkpoint of the model, or the loaded model.
      date: current time for a chat template; None for now.

    Raises:
      PromptError: a prompt cannot be fed.
    """
    if config.prompt_sources or not config.random:
        prompts = load_prompts(config, chat=_uses_template(config, checkpoint.tokenizer))
    else:
        prompts = _selected(_random_prompts(checkpoint.config, config.seed), config)
    return encode(
        prompts,
        checkpoint.name,
        checkpoint.config,
        checkpoint.tokenizer,
        config,
        chat=not config.score,
        last_twice=config.compat_duplicate_last_prompt_token,
        date=date,
    )


def _recorded_date(root: str | Path) -> datetime | None:
    """Return the time that the chat template of a stored run was given; None if it was given none.

    A run of jaxtrace 0.2 lacks it, and encoded its prompts just before it was created.
    """
    try:
        run = read_run(Location.of(root))
        if "prompt_format" not in run["info"]:
            return datetime.fromisoformat(run["created"]).astimezone().replace(tzinfo=None)
        date = run["info"]["prompt_format"]["date"]
        return None if date is None else datetime.fromisoformat(date)
    except (StoreError, ValueError, KeyError, TypeError):  # the writer reports an unreadable run
        return None


def _uses_template(config: RunConfig, tokenizer: Tokenizer | None) -> bool:
    chat = config.chat_mode != "never" and not config.score
    return chat and tokenizer is not None and tokenizer.has_chat_template


def _ignored_generation_settings(config: RunConfig, checkpoint: Checkpoint | RandomCheckpoint) -> dict[str, Any]:
    """Return the entries of the checkpoint's generation_config.json that the run ignores."""
    if config.score or isinstance(checkpoint, RandomCheckpoint):
        return {}
    settings = {"do_sample": config.sampler != "greedy", "max_new_tokens": config.max_new_tokens}
    if config.sampler == "sample":
        settings |= {name: getattr(config, name) for name in SAMPLING_FIELDS}
    return ignored_settings(checkpoint.generation, settings)


def _headline(config: RunConfig, model: Model, encoded: EncodedPrompts, info: dict[str, Any]) -> str:
    """Return the line that a run begins with."""
    counts = [len(tokens) for _, tokens in encoded]
    spread = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    parts = [
        f"{model.name}: {info['dtype']}",
        "no chat template" if info["prompt_format"]["template"] is None else "chat template",
        f"prompt tokens: {spread} ({len(counts)} prompt{'s' * (len(counts) != 1)})",
    ]
    if config.score:
        return ", ".join([*parts, "scored"])
    stops = [str(token) for token in model.stop_tokens]
    if model.tokenizer is not None:
        stops = [f"{model.tokenizer.pieces(np.array([token]))[0]!r} ({token})" for token in model.stop_tokens]
    changed = [name for name in SAMPLING_FIELDS if getattr(config, name) != type(config).model_fields[name].default]
    drawn = [f"{name} {getattr(config, name):g}" for name in changed or ["temperature"]]
    parts.append(f"stop tokens: {' '.join(stops) or 'none'}")
    if config.stop:
        parts.append(f"stop strings: {' '.join(map(repr, config.stop))}")
    parts.append(f"sampler: {config.sampler}" + f" ({' '.join(drawn)})" * (config.sampler == "sample"))
    ignored = [f"{name} {json.dumps(value)}" for name, value in info["ignored_generation_settings"].items()]
    return ", ".join(parts) + f"; ignored from generation_config.json: {', '.join(ignored)}" * bool(ignored)


def hash_prompts(encoded: EncodedPrompts) -> str:
    """Return the SHA-256 of the token ids and images that a run feeds."""
    digest = hashlib.sha256(json.dumps([tokens.tolist() for _, tokens in encoded]).encode())
    for prompt, _ in encoded:
        for image in prompt.images:
            digest.update(image.tobytes() if isinstance(image, Image.Image) else Path(image).read_bytes())
    return digest.hexdigest()


def _random_prompts(config: DecoderConfig, seed: int) -> list[Prompt]:
    """Return four prompts of random token ids, each with a random image if the model has an image encoder."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(config.vocab_size, size=(4, min(32, config.context)))
    images = ()
    if config.vision is not None and config.image_token is not None:
        size = config.vision.image_size
        images = (Image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8)),)
        ids[:, 0] = config.image_token
    return [Prompt(tokens=tuple(row), images=images, id=f"random-{i}") for i, row in enumerate(ids.tolist())]
