"""A model ready to be traced: the object that `jaxtrace.load` returns."""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.huggingface import Checkpoint, default_dtype, open_checkpoint
from jaxtrace.checkpoints.images import ImageProcessor
from jaxtrace.checkpoints.random import RandomCheckpoint, open_random
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.compilation import use_cache
from jaxtrace.engine.encode import ImagesLike, PromptLike, encode, looked, with_images
from jaxtrace.engine.gather import Metrics, OnProgress
from jaxtrace.engine.loop import generate_rows, score_rows
from jaxtrace.engine.pool import Look
from jaxtrace.engine.samplers import Greedy, Sampler
from jaxtrace.engine.settings import Settings
from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import TunedLens, read_lens
from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Decoder, Params, as_module
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.published import find_published
from jaxtrace.parallel.automatic import AUTO, chosen_mesh
from jaxtrace.prompts import Prompt
from jaxtrace.schema import QUANTITIES
from jaxtrace.settings.probes import Probes
from jaxtrace.traces.trace import Row, Trace

DEMO = "demo"


@dataclass(frozen=True)
class Model:
    """A decoder, its weights and its tokenizer.

    Attributes:
      name: as it was loaded.
      config: of the decoder.
      params: its parameters, a pytree for the pure functions of `jaxtrace.engine.step`.
      tokenizer: None for a checkpoint without one; prompts are then token ids.
      stop_tokens: the ids that end a text, by the checkpoint's own word.
      image_processor: for a model that sees images.
      lens: a tuned lens, from `with_lens`; None for the logit lens.
      fingerprint: gives the hash of its config and weights; "" for a model of no checkpoint.
    """

    name: str
    config: DecoderConfig
    params: Params
    tokenizer: Tokenizer | None = None
    stop_tokens: tuple[int, ...] = ()
    image_processor: ImageProcessor | None = None
    lens: TunedLens | None = None
    fingerprint: Callable[[], str] = str

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint | RandomCheckpoint,
        *,
        dtype: Any = None,
        stacked: bool | None = None,
        mesh: Mesh | str | None = AUTO,
    ) -> Model:
        """A model with the weights of an opened checkpoint; arguments and errors are those of `load`."""
        use_cache()
        stacked = jax.default_backend() == "tpu" if stacked is None else stacked
        dtype = default_dtype() if dtype is None else dtype
        mesh = chosen_mesh(mesh, checkpoint.config, np.dtype(dtype).itemsize)
        name, config, vision = checkpoint.name, checkpoint.config, checkpoint.config.vision
        processor = None
        if vision is not None:
            own = None if checkpoint.directory is None else ImageProcessor.load(checkpoint.directory, vision)
            processor = own or ImageProcessor.of(vision)
        params = checkpoint.read(dtype, mesh=mesh, stacked=stacked)
        known = checkpoint.tokenizer, checkpoint.stop_tokens, processor
        return cls(name, config, params, *known, fingerprint=checkpoint.fingerprint)

    def with_lens(self, directory: str | Path | None) -> Model:
        """The model with a tuned lens, whose translations the lens metrics are of; with the logit lens for None.

        Raises:
          CheckpointError: the directory holds no lens, or that of another model.
        """
        if directory is None:
            return dataclasses.replace(self, lens=None)
        return dataclasses.replace(
            self, lens=read_lens(directory, self.name, self.fingerprint(), self.config, self.params)
        )

    @property
    def decoder(self) -> Decoder:
        """The same weights as a Flax NNX module, to inspect."""
        return as_module(self.config, self.params)

    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        images: Sequence[ImagesLike] | None = None,
        max_new_tokens: int = 64,
        probes: Probes | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        stop_tokens: Sequence[int] | None = None,
        stop_repeats: int = 0,
        batch_size: int = 16,
        raw: bool = False,
        interventions: Interventions | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> Trace:
        """Continues every prompt, and traces every step of it.

        Args:
          prompts: texts, lists of token ids, or `Prompt`s, of any lengths. A text is put as a chat's first turn where
            the tokenizer has a chat template.
          images: for each prompt an image, several in a list, or None: files or Pillow images, for a model that sees.
            They stand where the prompt has its image tokens, or before a text that has none.
          max_new_tokens: most tokens to draw for each.
          probes: groups of metrics to record; None for all.
          sampler: how tokens are drawn; None for greedy.
          seed: of the sampler. A prompt draws the same tokens alone and in a batch, given its place in `prompts`.
          stop_tokens: ids that end a row; None for the checkpoint's, () to never stop early.
          stop_repeats: this many identical tokens in a row end it; 0 never does.
          batch_size: prompts run at once; where one is done, the next one takes its place.
          raw: feed texts as they are, without a chat template.
          interventions: blocks and heads to leave out; masks are traced, so that every choice is one compiled program.
          on_progress: called with (new prompts, new tokens, sum of their entropies) as the run goes on.

        Returns:
          A Trace whose step 0 is the prompt's last position, whose distribution draws the first new token.

        Raises:
          PromptError: a prompt is empty, longer than the context, text without a tokenizer, or has an unknown id; an
            image cannot be read, has no place in its prompt, or the model sees none.
          ConfigError: a count is out of range, or a mask of the interventions is not of the model's shape.
        """
        _at_least(1, max_new_tokens=max_new_tokens, batch_size=batch_size)
        _at_least(0, stop_repeats=stop_repeats)
        settings = Settings(
            probes=probes or Probes.all(),
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            sampler=sampler or Greedy(),
            stop_tokens=tuple(self.stop_tokens if stop_tokens is None else stop_tokens),
            stop_repeats=stop_repeats,
            seed=seed,
            interventions=interventions,
        )
        settings.probes.check(self.config)
        rows = self.generate_rows(self.encode(with_images(prompts, images), chat=not raw), settings, on_progress)
        return Trace([row for batch in rows for _, row in batch], self.info("generate", settings))

    def score(
        self,
        texts: Sequence[PromptLike],
        *,
        images: Sequence[ImagesLike] | None = None,
        probes: Probes | None = None,
        batch_size: int = 8,
        interventions: Interventions | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> Trace:
        """Traces every position of given texts, each predicting the token that comes next.

        Args and errors are those of `generate`. At a text's last position `token` is −1 and `logprob` NaN.
        """
        _at_least(1, batch_size=batch_size)
        settings = Settings(probes=probes or Probes.all(), batch_size=batch_size, interventions=interventions)
        settings.probes.check(self.config)
        rows = self.score_rows(self.encode(with_images(texts, images), chat=False), settings, on_progress)
        return Trace([row for batch in rows for _, row in batch], self.info("score", settings))

    def encode(self, prompts: Sequence[PromptLike], *, chat: bool) -> list[tuple[Prompt, np.ndarray]]:
        """Prompts beside their token ids, int32; raises PromptError for one that cannot be fed."""
        return encode(prompts, self.name, self.config, self.tokenizer, chat=chat)

    def generate_rows(
        self,
        prompts: Sequence[tuple[Prompt, np.ndarray]],
        settings: Settings,
        on_progress: OnProgress = lambda *_: None,
        numbers: Sequence[int] | None = None,
    ) -> Iterator[list[tuple[int, Row]]]:
        """`generate` of prompts from `encode`: rows with their numbers, in order, as soon as they are done.

        Args:
          prompts, settings, on_progress: as `generate` takes them.
          numbers: ascending, of the prompts in a run of which they are a part; 0, 1, … if None. They seed the draws.

        Yields:
          Of several processes, each yields the rows of its own share of the batch.
        """
        ids = [tokens for _, tokens in prompts]
        numbers = range(len(ids)) if numbers is None else numbers
        look = self._looking(prompts)
        for batch in generate_rows(
            self.config, self.params, ids, settings, on_progress, numbers, look, self._translators
        ):
            yield [(numbers[i], self._drawn_row(*prompts[i], metrics, settings)) for i, metrics in batch]

    def score_rows(
        self,
        texts: Sequence[tuple[Prompt, np.ndarray]],
        settings: Settings,
        on_progress: OnProgress = lambda *_: None,
        numbers: Sequence[int] | None = None,
    ) -> Iterator[list[tuple[int, Row]]]:
        """`score` of texts from `encode`, as `generate_rows` gives them."""
        ids = [tokens for _, tokens in texts]
        numbers = range(len(ids)) if numbers is None else numbers
        look = self._looking(texts)
        for batch in score_rows(self.config, self.params, ids, settings, on_progress, look, self._translators):
            yield [(numbers[i], self._scored_row(*texts[i], metrics)) for i, metrics in batch]

    def info(self, mode: str, settings: Settings) -> dict[str, Any]:
        """What a trace says of its making."""
        generating = {
            "max_new_tokens": settings.max_new_tokens,
            "sampler": repr(settings.sampler),
            "seed": settings.seed,
            "stop_tokens": list(settings.stop_tokens),
            "stop_repeats": settings.stop_repeats,
        }
        return {
            "mode": mode,
            "model": self.name,
            "family": self.config.family,
            "layers": self.config.layers,
            "heads": self.config.heads,
            "cache": {
                "layers": [i for i, kind in enumerate(self.config.kinds, 1) if not kind.cross_attention],
                "kv_heads": self.config.kv_heads,
                "head_dim": self.config.head_dim,
                "bytes": self.params["embedding"].dtype.itemsize,
            },
            "alphas": list(settings.probes.alphas),
            "probes": list(settings.probes.groups),
            "layer_stride": settings.probes.layer_stride,
            "lens": "logit" if self.lens is None else self.lens.hash,
            "left_out": {} if settings.interventions is None else settings.interventions.left_out(),
            "residuals": list(settings.probes.residuals),
            "top_tokens": settings.probes.top_tokens,
            "prompt_positions": settings.probes.prompt_positions,
            "lens_renyi": settings.probes.lens_renyi,
            "attention_rows": [list(row) for row in settings.probes.attention_rows],
            "batch_size": settings.batch_size,
            **(generating if mode == "generate" else {}),
            "backend": jax.default_backend(),
            "versions": dict(_versions()),
        }

    @property
    def _translators(self) -> Translators | None:
        return None if self.lens is None else self.lens.translators

    def _looking(self, prompts: Sequence[tuple[Prompt, np.ndarray]]) -> Look | None:
        """How the engine gets the images of a prompt: they are read and cut into tiles shortly before it runs."""
        most = max((len(prompt.images) for prompt, _ in prompts), default=0)
        if most == 0:
            return None
        assert self.image_processor is not None
        processor = self.image_processor
        return lambda index: looked(processor, self.config, *prompts[index], most)

    def _drawn_row(self, prompt: Prompt, ids: np.ndarray, metrics: Metrics, settings: Settings) -> Row:
        before = len(ids) - 1 if settings.probes.prompt_positions else 0
        metrics = _cut(metrics, len(ids) - 1 - before)
        tokens = metrics["token"][before:]
        stop = _why(tokens, settings)
        drawn = tokens[tokens >= 0]
        nothing = ("",) * (len(tokens) - len(drawn))
        if self.tokenizer is None:
            return Row(prompt, ids, ("",) * len(ids), metrics, ("",) * len(metrics["token"]), "", stop, before)
        pieces = self.tokenizer.pieces(np.concatenate([ids, drawn]))
        text = self.tokenizer.decode(drawn)
        of_steps = (*pieces[len(ids) - before :], *nothing)
        return Row(prompt, ids, pieces[: len(ids)], metrics, of_steps, text, stop, before)

    def _scored_row(self, prompt: Prompt, ids: np.ndarray, metrics: Metrics) -> Row:
        metrics = _cut(metrics, 0)
        stop = "scored" if np.isfinite(metrics.get("entropy", 0)).all() else "not_finite"
        if self.tokenizer is None:
            return Row(prompt, ids, ("",) * len(ids), metrics, ("",) * len(ids), "", stop)
        pieces = self.tokenizer.pieces(ids)
        return Row(prompt, ids, pieces, metrics, (*pieces[1:], ""), self.tokenizer.decode(ids), stop)


def _cut(metrics: Metrics, first: int) -> Metrics:
    """Metrics of steps from position `first` on, what goes over positions cut after the last step's own."""
    end = first + len(metrics["token"])
    return {name: x[..., :end].copy() if "key" in QUANTITIES[name].dims else x for name, x in metrics.items()}


def _why(tokens: np.ndarray, settings: Settings) -> str:
    """Why a row ended that drew these tokens."""
    if tokens[-1] < 0:
        return "not_finite"
    if tokens[-1] in settings.stop_tokens:
        return "stop_token"
    run = tokens[-settings.stop_repeats :]
    if settings.stop_repeats and len(run) == settings.stop_repeats and (run == run[0]).all():
        return "repeats"
    return "length"


def open_random_model(name: str, seed: int) -> RandomCheckpoint:
    """The shape behind a name, "demo" and published ones included, with random weights."""
    if name == DEMO:
        return dataclasses.replace(open_random(str(demo_path()), seed), name=f"{DEMO} (random, seed {seed})")
    return open_random(name, seed)


def open_model_checkpoint(name: str) -> Checkpoint:
    """The checkpoint behind a name, "demo" and published ones included, with its weights still on disk."""
    if name == DEMO:
        return dataclasses.replace(open_checkpoint(str(demo_path())), name=DEMO)
    published = None if Path(name).exists() else find_published(name)
    return open_checkpoint(name if published is None else published.hub_id)


def load(
    name: str,
    *,
    random: bool = False,
    seed: int = 0,
    dtype: Any = None,
    stacked: bool | None = None,
    mesh: Mesh | str | None = AUTO,
    lens: str | Path | None = None,
) -> Model:
    """Loads a model to trace.

    Args:
      name: a Hugging Face checkpoint directory, a converted one, a hub id, a name that `jaxtrace models` lists (which
        stands for its hub id), or "demo" for the model that comes with jaxtrace.
      random: random weights of the model's shape, made where they are wanted. No weights need be there: a published
        model's name or hub id, or a directory with a config.json is enough. It stops at no token, and has a tokenizer
        only if the directory has one.
      seed: of random weights.
      dtype: of the parameters; by default float32 on a CPU (which emulates bfloat16) and bfloat16 elsewhere.
      stacked: scan over stacked layers instead of unrolling them; by default on TPU only. Unrolled steps are faster,
        scanned ones compile faster.
      mesh: devices to split parameters and batches over, or its text, such as "data=2,model=4"; None for the default
        device. "auto" takes all devices, and splits the parameters over as few of them as hold them.
      lens: directory of a tuned lens of the model; None for the logit lens.

    Raises:
      CheckpointError: nothing is there, or it cannot be read exactly; the lens is of another model.
      ConfigError: its config, or the mesh, says something we do not understand, or the mesh does not divide the model.
    """
    checkpoint = open_random_model(name, seed) if random else open_model_checkpoint(name)
    return Model.of(checkpoint, dtype=dtype, stacked=stacked, mesh=mesh).with_lens(lens)


@functools.cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in ("jaxtrace", "jax", "flax")}}


def _at_least(least: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < least:
            raise ConfigError(f"{name}={count} is out of range; give {least} or more")
