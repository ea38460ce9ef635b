"""The object that `jaxtrace.load` returns: a model that generates, scores and traces text."""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxtrace import interrupts
from jaxtrace.checkpoints.assemble import default_sharding
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.huggingface import Checkpoint, default_dtype, open_checkpoint
from jaxtrace.checkpoints.images import ImageProcessor
from jaxtrace.checkpoints.local import local_copy, local_name, without_copy
from jaxtrace.checkpoints.random import RandomCheckpoint, open_random
from jaxtrace.checkpoints.token_bytes import token_bytes
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.compilation import use_cache
from jaxtrace.engine.encode import (
    EncodedPrompts,
    ImagesLike,
    PromptLike,
    check_prompt_lengths,
    encode,
    load_prompt_images,
    with_images,
)
from jaxtrace.engine.hints import hint_at_lens
from jaxtrace.engine.loop import generate_rows, score_rows
from jaxtrace.engine.metric_buffer import Metrics, OnProgress
from jaxtrace.engine.pool import ImageLoader
from jaxtrace.engine.samplers import Greedy, Sampler
from jaxtrace.engine.settings import DEFAULTS, Settings
from jaxtrace.engine.stop_strings import StopStrings, check_stop, cut_pieces
from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import TunedLens, read_lens
from jaxtrace.errors import ConfigError
from jaxtrace.files import path_exists
from jaxtrace.kernels import at_precision, precision_name
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Decoder, Params, abstract_params, as_module
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.published import find_published
from jaxtrace.parallel.automatic import resolve_mesh
from jaxtrace.prompts import Prompt
from jaxtrace.schema import QUANTITIES
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.prompt import ChatMode, PromptSettings, StartMode
from jaxtrace.settings.run import AUTO, DEMO
from jaxtrace.settings.sampling import DecodingSettings, PrecisionName
from jaxtrace.settings.validation import validated
from jaxtrace.traces.layers import on_layers
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace


@dataclass(frozen=True)
class Model:
    """A decoder with its weights and its tokenizer.

    Attributes:
      name: name under which it was loaded.
      config: config of the decoder.
      params: parameters of the decoder: a pytree for the pure functions of `jaxtrace.engine.step`.
      tokenizer: tokenizer of the checkpoint; None if it has none, and prompts must then be token ids.
      stop_tokens: ids that end a text, from the checkpoint's generation config.
      image_processor: image processor; None for a model without images.
      lens: tuned lens, from `with_lens`; None for the logit lens.
      fingerprint: function that returns the SHA-256 of config and weights; "" for a model without a checkpoint.
      revision: commit of the checkpoint on the hub; None for another checkpoint.
      revision_name: branch, tag or commit that the user named; None for the main branch.
      notes: sentences on what was read in another way than the checkpoint's files suggest.
      ignored_config: attributes of config.json that were not read, with the reason of each.
    """

    name: str
    config: DecoderConfig
    params: Params
    tokenizer: Tokenizer | None = None
    stop_tokens: tuple[int, ...] = ()
    image_processor: ImageProcessor | None = None
    lens: TunedLens | None = None
    fingerprint: Callable[[], str] = str
    revision: str | None = None
    revision_name: str | None = None
    notes: tuple[str, ...] = ()
    ignored_config: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint | RandomCheckpoint,
        *,
        dtype: Any = None,
        stacked: bool | None = None,
        mesh: Mesh | str | None = AUTO,
        before_reading: Callable[[Params], None] = lambda _: None,
    ) -> Model:
        """Read the weights of an opened checkpoint; other arguments and errors match `load`.

        Args:
          before_reading: called with the shapes of the parameters before their weights are read, to compile meanwhile;
            not called for a mesh or random weights.
        """
        use_cache()
        stacked = jax.default_backend() == "tpu" if stacked is None else stacked
        dtype = default_dtype() if dtype is None else dtype
        mesh = resolve_mesh(mesh, checkpoint.config, np.dtype(dtype).itemsize)
        name, config, vision = checkpoint.name, checkpoint.config, checkpoint.config.vision
        processor = None
        if vision is not None:
            stored = None if checkpoint.directory is None else ImageProcessor.load(checkpoint.directory, vision)
            processor = stored or ImageProcessor.of(vision)
        checkpoint.log_notes()
        if mesh is None and isinstance(checkpoint, Checkpoint):
            shapes, device = abstract_params(config, stacked=stacked, dtype=dtype), default_sharding()
            before_reading(jax.tree.map(lambda x: x.update(sharding=device), shapes))
        params = checkpoint.read(dtype, mesh=mesh, stacked=stacked)
        return cls(
            name,
            config,
            params,
            checkpoint.tokenizer,
            checkpoint.stop_tokens,
            processor,
            fingerprint=checkpoint.fingerprint,
            revision=checkpoint.revision,
            revision_name=checkpoint.revision_name,
            notes=checkpoint.notes,
            ignored_config=checkpoint.ignored_config,
        )

    def with_lens(self, directory: str | Path | None) -> Model:
        """Return the model with a tuned lens for its lens metrics.

        Args:
          directory: directory of the lens; None for the logit lens.

        Raises:
          CheckpointError: the directory holds no lens, or the lens of another model.
        """
        if directory is None:
            return dataclasses.replace(self, lens=None)
        return dataclasses.replace(
            self, lens=read_lens(directory, self.name, self.fingerprint(), self.config, self.params)
        )

    @property
    def decoder(self) -> Decoder:
        """The same weights as a Flax NNX module, for inspection."""
        return as_module(self.config, self.params)

    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        images: Sequence[ImagesLike] | None = None,
        max_new_tokens: int = DEFAULTS.max_new_tokens,
        probes: Probes | None = None,
        sampler: Sampler | None = None,
        seed: int = DEFAULTS.seed,
        stop_tokens: Sequence[int] | None = None,
        stop_repeats: int = DEFAULTS.stop_repeats,
        stop: str | Sequence[str] = DEFAULTS.stop,
        batch_size: int = DEFAULTS.batch_size,
        deterministic: bool = DEFAULTS.deterministic,
        matmul_precision: PrecisionName = DEFAULTS.matmul_precision,
        chat: ChatMode = "auto",
        raw: bool = False,
        system: str | None = None,
        template_arg: Mapping[str, Any] | None = None,
        prefix: str = "",
        bos: StartMode = "auto",
        allow_special: bool = False,
        interventions: Interventions | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> Trace:
        """Continue every prompt and trace every step.

        Args:
          prompts: texts, lists of messages ({"role": "user", "content": "…"}), lists of token ids, or `Prompt`s, of any
            lengths. A text becomes the first turn of a chat if the tokenizer has a chat template.
          images: one entry per prompt: an image, a list of images, or None. Images are files or Pillow images. They
            belong to the prompt's image tokens, or precede a text that has none.
          max_new_tokens: largest number of tokens to draw for each prompt.
          probes: groups of metrics to record; None for all.
          sampler: sampler of the tokens; None for greedy.
          seed: seed of the sampler. A prompt draws the same tokens alone and in a batch, given its index in `prompts`.
          stop_tokens: ids that end a row; None for the checkpoint's, () to never stop early.
          stop_repeats: number of identical tokens in a row that end it; 0 disables the rule.
          stop: text, or texts, that end a row. The token that completes one is its last; `Row.text` ends before it.
          batch_size: number of prompts that run at once; the next prompt replaces one that has finished.
          deterministic: True gives a prompt the same bits in any batch: rows run in blocks of one size.
          matmul_precision: precision of float32 products: "default", "high", "highest", or "auto", which is JAX's own
            setting (`jax.default_matmul_precision`) where there is one, and "highest" otherwise.
          chat: "auto" uses the chat template if there is one, "always" requires it, "never" feeds texts without it.
          raw: True feeds texts without a chat template; short for chat="never".
          system: system message, put before every prompt.
          template_arg: arguments of the chat template by name, such as {"enable_thinking": False}.
          prefix: text that every answer begins with; fed after the prompt.
          bos: start token before prompts: "auto" feeds what tokenizer and chat template put there, "always" exactly
            one, "never" none. Prompts of token ids need "auto".
          allow_special: True parses control tokens in the text of messages; otherwise they are plain text.
          interventions: blocks and heads to ablate. The masks are traced, so one compiled program serves every choice.
          on_progress: callback with (new prompts, new tokens, sum of their entropies), called during the run.

        Returns:
          A Trace. Its step 0 is the prompt's last position, whose distribution draws the first new token.

        Raises:
          PromptError: a prompt is empty, longer than the context, text without a tokenizer, or has an unknown id; a
            message or the chat template is unusable; or an image is unreadable, has no image token in its prompt, or
            the model has no image encoder.
          OutOfMemoryError: the rows do not fit the memory; a smaller batch may.
          ConfigError: settings of the prompts exclude each other, a count is out of range, a mask of the interventions
            does not have the model's shape, or there is a stop string and no tokenizer.
        """
        settings = Settings(
            probes=probes or Probes.all(),
            batch_size=batch_size,
            deterministic=deterministic,
            matmul_precision=matmul_precision,
            max_new_tokens=max_new_tokens,
            sampler=sampler or Greedy(),
            stop_tokens=tuple(self.stop_tokens if stop_tokens is None else stop_tokens),
            stop_repeats=stop_repeats,
            stop=validated(DecodingSettings, {"stop": stop}, "generate").stop,
            seed=seed,
            interventions=interventions,
        )
        settings.probes.check(self.config)
        check_stop(settings.stop, self.tokenizer)
        fields = {
            "chat": chat,
            "raw": raw,
            "system": system,
            "template_arg": template_arg,
            "prefix": prefix,
            "bos": bos,
            "allow_special": allow_special,
        }
        encoded = self.encode(with_images(prompts, images), validated(PromptSettings, fields, "generate"))
        rows = self.generate_rows(encoded, settings, on_progress)
        info = self.info("generate", settings) | {"prompt_format": encoded.info}
        return Trace(in_order(rows), info)

    def score(
        self,
        texts: Sequence[PromptLike],
        *,
        images: Sequence[ImagesLike] | None = None,
        probes: Probes | None = None,
        batch_size: int = 8,
        deterministic: bool = DEFAULTS.deterministic,
        matmul_precision: PrecisionName = DEFAULTS.matmul_precision,
        bos: StartMode = "auto",
        interventions: Interventions | None = None,
        prompt_lengths: Sequence[int] | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> Trace:
        """Trace every position of given texts; each position predicts the next token.

        Other arguments and errors match `generate`. At a text's last position `token` is −1 and `logprob` NaN.

        Args:
          prompt_lengths: number of tokens of each text that are its prompt, for `attention_prompt_mass`; None if the
            whole text is.

        Raises:
          PromptError: `prompt_lengths` does not have one number from 0 to the text's tokens for each text.
        """
        settings = Settings(
            probes=probes or Probes.all(),
            batch_size=batch_size,
            deterministic=deterministic,
            matmul_precision=matmul_precision,
            interventions=interventions,
        )
        settings.probes.check(self.config)
        prompt_settings = validated(PromptSettings, {"bos": bos}, "score")
        encoded = self.encode(with_images(texts, images), prompt_settings, chat=False)
        check_prompt_lengths(prompt_lengths, encoded)
        rows = self.score_rows(encoded, settings, on_progress, prompt_lengths=prompt_lengths)
        info = self.info("score", settings) | {"prompt_format": encoded.info}
        return Trace(in_order(rows), info)

    def encode(
        self,
        prompts: Sequence[PromptLike],
        settings: PromptSettings | None = None,
        *,
        chat: bool = True,
        date: datetime | None = None,
    ) -> EncodedPrompts:
        """Return each prompt with its token ids, int32.

        Args:
          prompts: prompts, see `generate`.
          settings: use of the chat template, and text around the prompts; None for the defaults.
          chat: False feeds texts without the chat template, whatever the settings say.
          date: current time for the chat template; None for now.

        Raises:
          PromptError: a prompt cannot be fed.
        """
        return encode(prompts, self.name, self.config, self.tokenizer, settings, chat=chat, date=date)

    def generate_rows(
        self,
        prompts: Sequence[tuple[Prompt, np.ndarray]],
        settings: Settings,
        on_progress: OnProgress = lambda *_: None,
        numbers: Sequence[int] | None = None,
    ) -> Iterator[list[tuple[int, Row]]]:
        """Run `generate` on prompts from `encode`, and yield the rows in order as soon as they are complete.

        The order of a deterministic run holds among prompts with the same number of cache slots.

        Args:
          prompts: prompts with their token ids.
          settings: settings of the engine.
          on_progress: callback, see `generate`.
          numbers: ascending numbers of the prompts, for example in a resumed run; None for 0, 1, …. They seed the
            draws.

        Yields:
          Lists of (number of the prompt, its row). Each of several processes yields the rows of its share of the batch.
        """
        ids = [tokens for _, tokens in prompts]
        numbers = range(len(ids)) if numbers is None else numbers
        load_images = self._image_loader(prompts)
        strings = find_stop_strings(settings.stop, self.tokenizer, self.config.vocab_size)
        hint_at_lens(self.config, self.params, settings.probes, min(settings.batch_size, len(ids)))
        for batch in generate_rows(
            self.config, self.params, ids, settings, on_progress, numbers, load_images, self._translators, strings
        ):
            yield [(numbers[i], self._generated_row(*prompts[i], metrics, settings, strings)) for i, metrics in batch]

    def score_rows(
        self,
        texts: Sequence[tuple[Prompt, np.ndarray]],
        settings: Settings,
        on_progress: OnProgress = lambda *_: None,
        numbers: Sequence[int] | None = None,
        prompt_lengths: Sequence[int] | None = None,
    ) -> Iterator[list[tuple[int, Row]]]:
        """Run `score` on texts from `encode`; other arguments and yielded values match `generate_rows`."""
        ids = [tokens for _, tokens in texts]
        numbers = range(len(ids)) if numbers is None else numbers
        options = {"load_images": self._image_loader(texts), "lens": self._translators}
        options |= {"prompt_lengths": prompt_lengths}
        hint_at_lens(self.config, self.params, settings.probes, sum(sorted(map(len, ids))[-settings.batch_size :]))
        for batch in score_rows(self.config, self.params, ids, settings, on_progress, **options):
            yield [(numbers[i], self._scored_row(*texts[i], metrics, settings)) for i, metrics in batch]

    def info(self, mode: str, settings: Settings) -> dict[str, Any]:
        """Return the description of a run that its trace stores as `Trace.info`."""
        with at_precision(settings.matmul_precision):
            precision = precision_name(self.params["embedding"].dtype)
        generating = {
            "max_new_tokens": settings.max_new_tokens,
            "sampler": repr(settings.sampler),
            "seed": settings.seed,
            "stop_tokens": list(settings.stop_tokens),
            "stop_repeats": settings.stop_repeats,
            "stop": list(settings.stop),
        }
        return {
            "mode": mode,
            "model": self.name,
            "revision": self.revision,
            "revision_name": self.revision_name,
            "notes": list(self.notes),
            "family": self.config.family,
            "ignored_config": dict(self.ignored_config),
            "layers": self.config.num_layers,
            "heads": self.config.num_heads,
            "vocab_size": self.config.vocab_size,
            **_layers_without(self.config),
            "windows": _windows(self.config),
            "cache": _cache_shape(self.config, self.params["embedding"].dtype.itemsize),
            "alphas": list(settings.probes.alphas),
            "dtype": self.params["embedding"].dtype.name,
            "probes": list(settings.probes.of_model(self.config).groups),
            "layer_stride": settings.probes.layer_stride,
            **settings.probes.lens_choice,
            "lens": "logit" if self.lens is None else self.lens.hash,
            "left_out": {} if settings.interventions is None else settings.interventions.ablated(),
            "residuals": list(settings.probes.residuals),
            "top_tokens": settings.probes.top_tokens,
            **({"top_k_mass": settings.probes.top_k_mass} if settings.probes.top_k_mass else {}),
            "prompt_positions": settings.probes.prompt_positions,
            "lens_renyi": settings.probes.lens_renyi,
            "attention_rows": [list(row) for row in settings.probes.attention_rows],
            **({"experts": self.config.chosen_experts} if settings.probes.experts else {}),
            **({"step_metrics": list(settings.probes.step_metrics)} if settings.probes.step_metrics else {}),
            "batch_size": settings.batch_size,
            "deterministic": settings.deterministic,
            "matmul_precision": precision,
            **(generating if mode == "generate" else {}),
            "backend": jax.default_backend(),
            "versions": dict(_versions()),
        }

    @property
    def _translators(self) -> Translators | None:
        return None if self.lens is None else self.lens.translators

    def _image_loader(self, prompts: Sequence[tuple[Prompt, np.ndarray]]) -> ImageLoader | None:
        """Return a function that reads a prompt's images by its index; None if no prompt has images."""
        most = max((len(prompt.images) for prompt, _ in prompts), default=0)
        if most == 0:
            return None
        assert self.image_processor is not None
        processor = self.image_processor
        return lambda index: load_prompt_images(processor, self.config, *prompts[index], most)

    def _generated_row(
        self, prompt: Prompt, ids: np.ndarray, metrics: Metrics, settings: Settings, strings: StopStrings | None
    ) -> Row:
        prompt_steps = len(ids) - 1 if settings.probes.prompt_positions else 0
        metrics = self._on_recorded_layers(_trim_keys(metrics, len(ids) - 1 - prompt_steps), settings.probes)
        tokens = metrics["token"][prompt_steps:]
        stop = _stop_reason(tokens, settings, strings)
        drawn = tokens[tokens >= 0]
        if self.tokenizer is None:
            return Row(prompt, ids, ("",) * len(ids), metrics, ("",) * len(metrics["token"]), "", stop, prompt_steps)
        pieces = self.tokenizer.pieces(np.concatenate([ids, drawn]))
        step_pieces = (*pieces[len(ids) - prompt_steps :], *("",) * (len(tokens) - len(drawn)))
        drawn_pieces = pieces[len(ids) :]
        if stop == "stop_string":
            drawn_pieces = cut_pieces(drawn_pieces, settings.stop)
        text = self.tokenizer.join(drawn, drawn_pieces)
        return Row(prompt, ids, pieces[: len(ids)], metrics, step_pieces, text, stop, prompt_steps)

    def _on_recorded_layers(self, metrics: Metrics, probes: Probes) -> Metrics:
        """Return a row's metrics on the layer axis that all of them share."""
        return on_layers(metrics, self.config.num_layers, probes.recorded_layers(self.config), vars(probes))

    def _scored_row(self, prompt: Prompt, ids: np.ndarray, metrics: Metrics, settings: Settings) -> Row:
        metrics = self._on_recorded_layers(_trim_keys(metrics, 0), settings.probes)
        stop = "scored" if np.isfinite(metrics.get("entropy", 0)).all() else "not_finite"
        if self.tokenizer is None:
            return Row(prompt, ids, ("",) * len(ids), metrics, ("",) * len(ids), "", stop)
        pieces = self.tokenizer.pieces(ids)
        return Row(prompt, ids, pieces, metrics, (*pieces[1:], ""), self.tokenizer.join(ids, pieces), stop)


def find_stop_strings(strings: tuple[str, ...], tokenizer: Tokenizer | None, vocab_size: int) -> StopStrings | None:
    """Return the automaton of stop strings over a tokenizer's tokens; None for no strings."""
    check_stop(strings, tokenizer)
    if not strings or tokenizer is None:
        return None
    return StopStrings.of(strings, token_bytes(tokenizer.backend, vocab_size))


def in_order(batches: Iterable[list[tuple[int, Row]]]) -> list[Row]:
    """Return the rows of a run in the order of their prompts."""
    with interrupts.checked():
        return [row for _, row in sorted((pair for batch in batches for pair in batch), key=lambda pair: pair[0])]


def _trim_keys(metrics: Metrics, first: int) -> Metrics:
    """Trim metrics over cache slots to the positions up to the last step's; `first` is the first step's position."""
    end = first + len(metrics["token"])
    return {name: x[..., :end].copy() if "key" in QUANTITIES[name].dims else x for name, x in metrics.items()}


def _stop_reason(tokens: np.ndarray, settings: Settings, strings: StopStrings | None) -> str:
    """Return why a row ended after drawing these tokens."""
    if tokens[-1] < 0:
        return "not_finite"
    if strings is not None and strings.matched(tokens):
        return "stop_string"
    if tokens[-1] in settings.stop_tokens:
        return "stop_token"
    last = tokens[-settings.stop_repeats :]
    if settings.stop_repeats and len(last) == settings.stop_repeats and (last == last[0]).all():
        return "repeats"
    return "length"


def open_random_model(
    name: str, seed: int, revision: str | None = None, ignore_config: Sequence[str] = ()
) -> RandomCheckpoint:
    """Return the shape behind a name ("demo" and published names included) with random weights."""
    validated(DecodingSettings, {"seed": seed}, "random weights")
    if revision is not None:
        raise ConfigError(f"revision is {revision!r}, but random weights are not fetched; drop it, or random")
    if name == DEMO:
        checkpoint = open_random(str(demo_path()), seed, ignore_config)
        return dataclasses.replace(checkpoint, name=f"{DEMO} (random, seed {seed})")
    return open_random(name, seed, ignore_config)


def open_model_checkpoint(name: str, revision: str | None = None, ignore_config: Sequence[str] = ()) -> Checkpoint:
    """Open the checkpoint behind a name ("demo" and published names included); its weights stay on disk.

    A short name without a revision stands for a local copy if there is one (see `local_copy`), and otherwise for its
    hub id; so does the name of a local copy, which runs store.
    """
    if name == DEMO:
        if revision is not None:
            raise ConfigError(f"revision is {revision!r}, but {DEMO} comes with jaxtrace; drop it, or give a hub id")
        return dataclasses.replace(open_checkpoint(str(demo_path()), ignore_config=ignore_config), name=DEMO)
    bare = without_copy(name)
    published = None if path_exists(name) else find_published(bare)
    if published is None:
        return open_checkpoint(name, revision, ignore_config)
    copy = None if ("/" in name and bare == name) or revision is not None else local_copy(published)
    if copy is None:
        return open_checkpoint(published.hub_id, revision, ignore_config)
    checkpoint = open_checkpoint(str(copy), ignore_config=ignore_config)
    return dataclasses.replace(checkpoint, name=local_name(published, copy))


def load(
    name: str,
    *,
    revision: str | None = None,
    random: bool = False,
    seed: int = 0,
    dtype: Any = None,
    stacked: bool | None = None,
    mesh: Mesh | str | None = AUTO,
    lens: str | Path | None = None,
    ignore_config: Sequence[str] = (),
) -> Model:
    """Load a model to trace.

    Args:
      name: a Hugging Face checkpoint directory, a converted one, a GGUF file, a hub id, a name that `jaxtrace models`
        lists (which stands for its hub id), or "demo" for the model that comes with jaxtrace.
      revision: branch, tag or commit of a hub id; None for the main branch. `Model.revision` is the commit.
      random: True for random weights of the model's shape, created on the devices. Weights need not exist: a published
        name, a hub id, a directory with a config.json or a GGUF file is enough. The model has no stop tokens, and has a
        tokenizer only if the files have one.
      seed: seed of random weights.
      dtype: dtype of the parameters; None for float32 on a CPU (which emulates bfloat16) and bfloat16 elsewhere.
      stacked: True scans over stacked layers, False unrolls them; None stacks on TPU only. Unrolled steps run faster,
        scanned ones compile faster.
      mesh: devices to split parameters and batches over: a mesh, or its text, such as "data=2,model=4"; None for the
        default device. "auto" uses all devices, and splits the parameters over the smallest number that holds them.
      lens: directory of a tuned lens of the model; None for the logit lens.
      ignore_config: attributes of config.json to treat as absent, though jaxtrace or transformers reads them.

    Raises:
      CheckpointError: there is no such checkpoint, it cannot be read exactly, or the lens belongs to another model.
      ConfigError: jaxtrace does not support the config or the mesh, or the mesh does not divide the model.
      OutOfMemoryError: the weights do not fit the memory.
    """
    if random:
        checkpoint = open_random_model(name, seed, revision, ignore_config)
    else:
        checkpoint = open_model_checkpoint(name, revision, ignore_config)
    return Model.from_checkpoint(checkpoint, dtype=dtype, stacked=stacked, mesh=mesh).with_lens(lens)


def _layers_without(config: DecoderConfig) -> dict[str, dict[str, list[int]]]:
    """Return {"layers_without": part → its layers, from 1} for the parts that only some layers have; {} for none."""
    without = {
        "attention": [layer for layer, kind in enumerate(config.kinds, 1) if kind.delta_net is not None],
        "experts": [layer for layer, kind in enumerate(config.kinds, 1) if config.experts is not None and kind.dense],
    }
    without = {part: layers for part, layers in without.items() if layers}
    return {"layers_without": without} if without else {}


def _windows(config: DecoderConfig) -> list[int | dict[str, int] | None]:
    """Return the number of positions that each layer's attention sees: a window, {"chunk": size}, or None for all."""
    return [kind.window if kind.chunk is None else {"chunk": kind.chunk} for kind in config.kinds]


def _cache_shape(config: DecoderConfig, bytes_per_element: int) -> dict[str, Any]:
    """Return the layers with keys and values, and the sizes of these, as lists by layer where they differ.

    `recurrent` are the bytes of a row's recurrent states in all layers, whatever its number of tokens.
    """
    cached = [(number, config.sized(kind)) for number, kind in enumerate(config.kinds, 1) if kind.caches_text]
    shape: dict[str, Any] = {"layers": [number for number, _ in cached]}
    for name in ("kv_heads", "head_dim"):
        sizes = [getattr(size, name) for _, size in cached]
        shape[name] = sizes if len({*sizes}) != 1 else sizes[0]
    recurrent = {"recurrent": bytes_per_row} if (bytes_per_row := config.recurrent_bytes(bytes_per_element)) else {}
    return {**shape, "bytes": bytes_per_element, **recurrent}


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("jaxtrace", "jax", "flax", "numpy", "transformers", "tokenizers")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
