"""Opens checkpoints: Hugging Face directories, converted ones, GGUF files and hub ids."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from huggingface_hub import snapshot_download
from jax.sharding import Mesh

from jaxtrace.checkpoints.assemble import assemble
from jaxtrace.checkpoints.converted import PARAMS, UNTIED, Conversion
from jaxtrace.checkpoints.quantised import QUANTISED_FILES, Quantisation, unquantised
from jaxtrace.checkpoints.safetensors import ADAPTER, INDEX, SINGLE, shard_names
from jaxtrace.checkpoints.sources import CONFIG, GENERATION, CheckpointFiles, find_files
from jaxtrace.checkpoints.table import stored_names
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.checkpoints.weights import TensorWeights, as_stored
from jaxtrace.errors import CheckpointError, ConfigError, first_line, one_line
from jaxtrace.files import open_regular, path_exists
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.reader import INERT, NULL
from jaxtrace.models.families.unsupported import unsupported
from jaxtrace.models.published import check_model_name
from jaxtrace.parallel.memory import loading_weights
from jaxtrace.parallel.processes import is_leader
from jaxtrace.parallel.sharding import param_shardings
from jaxtrace.prompts import LAST_TOKEN_ID, token_ids

if TYPE_CHECKING:
    from jaxtrace.checkpoints.orbax import OrbaxWeights

LOG = logging.getLogger("jaxtrace")
# Files besides the weights that are fetched from the hub: names, since a pattern also matches in folders, such as
# original/ or checkpoint-500/.
HUB_FILES = (
    *(CONFIG, GENERATION, "preprocessor_config.json", "processor_config.json", *QUANTISED_FILES),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "merges.txt", "vocab.txt", "tekken.json", "chat_template.json", "chat_template.jinja"),
    *(INDEX, ADAPTER),
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config is parsed and whose weights are still on disk.

    Attributes:
      name: name that the user gave.
      files: its files.
      config: config of the decoder.
      tokenizer: tokenizer, or None.
      stop_tokens: end-of-sequence ids from its config, generation config and tokenizer.
      conversion: source and settings of a converted checkpoint; None for a Hugging Face checkpoint.
      quantisation: how the weights are stored, or were before the conversion, if they are quantised; they are
        dequantised as they are read.
      untied: True if a stored unembedding is read although config.json ties it to the embedding.
      revision: commit of the files on the hub; None for a directory that is not in the hub's cache.
      revision_name: branch, tag or commit that the user named; None for the main branch.
      notes: sentences on what was read in another way than the files suggest; `log_notes` shows them.
      generation: content of its generation_config.json.
      ignored_config: attributes of config.json that were not read, with the reason of each; see `read_config`.
    """

    name: str
    files: CheckpointFiles
    config: DecoderConfig
    tokenizer: Tokenizer | None
    stop_tokens: tuple[int, ...]
    conversion: Conversion | None = None
    quantisation: Quantisation | None = None
    untied: bool = False
    revision: str | None = None
    revision_name: str | None = None
    notes: tuple[str, ...] = ()
    generation: dict[str, Any] = field(default_factory=dict)
    ignored_config: Mapping[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Directory of its files."""
        return self.files.directory

    def log_notes(self) -> None:
        """Log the notes as warnings of the logger "jaxtrace"."""
        log_notes(self.name, self.notes, self.ignored_config)

    def read(self, dtype: Any = None, *, mesh: Mesh | None = None, stacked: bool = False) -> Params:
        """Read the parameters.

        Args:
          dtype: dtype of all parameters; by default float32 on a CPU and bfloat16 elsewhere.
          mesh: mesh to split the parameters over; None for the default device.
          stacked: True to stack the layers for a scan.

        Raises:
          CheckpointError: the parameters cannot be read exactly.
          OutOfMemoryError: the parameters do not fit.
        """
        dtype = default_dtype() if dtype is None else dtype
        shardings = None if mesh is None else param_shardings(self.config, mesh, stacked=stacked)
        with self.weights() as weights, loading_weights(self.name, self.config, dtype):
            return assemble(self.config, weights.read, dtype, shardings, stacked)

    @contextmanager
    def weights(self) -> Iterator[TensorWeights | OrbaxWeights]:
        """Open the parameters on disk, to read parts of them; raises CheckpointError."""
        if self.conversion is not None:
            from jaxtrace.checkpoints.orbax import OrbaxWeights  # importing Orbax takes a second

            yield OrbaxWeights(self.config, self.directory / PARAMS, self.name)
            return
        with self.files.tensors(self.config, self.quantisation) as tensors:
            yield TensorWeights(self.config, tensors, self.name)

    @functools.cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of every weight file, and `UNTIED` if that holds; a conversion stores the digests of its source."""
        if self.conversion is not None:
            return self.conversion.weights
        return (*map(_digest, self.files.weight_files()), *([UNTIED] if self.untied else []))

    def fingerprint(self) -> str:
        """Return the SHA-256 of config and weights; a conversion without rounding has its source's fingerprint."""
        digests = (hashlib.sha256(self.files.config_text()).hexdigest(), *self.digests)
        return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def open_checkpoint(name: str, revision: str | None = None, ignore_config: Sequence[str] = ()) -> Checkpoint:
    """Find a checkpoint and read everything but its weights.

    Args:
      name: directory, GGUF file, or hub id such as "meta-llama/Llama-3.2-1B" (downloaded once, then cached by
        huggingface_hub).
      revision: branch, tag or commit on the hub; None for the main branch.
      ignore_config: attributes of config.json to leave unread; see `read_config`.

    Raises:
      CheckpointError: the checkpoint is missing or unreadable.
      ConfigError: the config has an attribute or a value that jaxtrace does not support, or a directory has a revision.
    """
    local = path_exists(name)
    if local and revision is not None:
        raise ConfigError(f"revision is {revision!r}, but {name} is a path here; drop it, or give a hub id")
    files = find_files(Path(name) if local else _fetch(name, revision, HUB_FILES), name)
    conversion = files.conversion()
    raw, config, ignored = read_config(files, name, ignore_config)
    commit = _commit(files.directory)
    if not local:
        _fetch_weights(name, commit or revision, files.directory)
    quantisation = files.quantisation(raw)
    if conversion is None:
        _check_head(files, name, raw, config, quantisation)
    stored, notes = _as_stored(files, config, conversion, quantisation)
    tokenizer, generation = files.tokenizer(), files.generation()
    stop_tokens, stop_notes = _stop_tokens(files.directory, raw, generation, tokenizer, config)
    return Checkpoint(
        name,
        files,
        stored,
        tokenizer,
        stop_tokens,
        conversion,
        quantisation,
        untied=stored.tied != config.tied,
        revision=commit if conversion is None else conversion.revision,
        revision_name=revision if conversion is None else conversion.revision_name,
        notes=config_notes(raw, ignored) + notes + stop_notes,
        generation=generation,
        ignored_config=ignored,
    )


def read_shape(source: Path | CheckpointFiles, name: str, ignore_config: Sequence[str] = ()) -> DecoderConfig:
    """Return the decoder's config as the weights are stored, if they are there; raises CheckpointError, ConfigError."""
    files = find_files(source, name) if isinstance(source, Path) else source
    raw, config, _ = read_config(files, name, ignore_config)
    try:
        return _as_stored(files, config, files.conversion(), files.quantisation(raw))[0]
    except CheckpointError:  # the shape does not need the weights, which may be missing or incomplete
        return config


def read_config(
    source: Path | CheckpointFiles, name: str, ignore_config: Sequence[str] = ()
) -> tuple[dict[str, Any], DecoderConfig, dict[str, str]]:
    """Read config.json, or the metadata of a GGUF file as such.

    Args:
      source: directory of the checkpoint, GGUF file, or either's files.
      name: name of the checkpoint, for error messages.
      ignore_config: attributes to treat as absent, at the top or in `text_config` and `vision_config`.

    Returns:
      Its content, the decoder's config, and the attributes that were not read, with the reason of each.

    Raises:
      CheckpointError: there is no config.json, the weights are quantised in a way that is not read, or the model type
        is not supported.
      ConfigError: an attribute or a value is not supported, or one of `ignore_config` is absent.
    """
    files = find_files(source, name) if isinstance(source, Path) else source
    raw = files.config()
    kind = raw.get("model_type")
    if kind not in list(FAMILIES):  # the value may be unhashable
        raise CheckpointError(f"{name}: {unsupported(raw)}")
    raw, ignored = _without(raw, ignore_config, name)
    files.quantisation(raw)
    return raw, FAMILIES[kind].decoder_config(unquantised(raw), name, ignored), ignored


def config_notes(raw: dict[str, Any], ignored: Mapping[str, str]) -> tuple[str, ...]:
    """Return notes on attributes that were not read and may matter, and on another architecture."""
    odd = [f"{attribute} ({reason})" for attribute, reason in ignored.items() if reason not in (INERT, NULL)]
    notes = (f"ignored config attributes: {', '.join(odd)}",) if odd else ()
    return (*notes, f"{head}; it is traced as a language model") if (head := _missing_head(raw)) else notes


def log_notes(name: str, notes: Sequence[str], ignored: Mapping[str, str]) -> None:
    """Log notes as warnings of the logger "jaxtrace", and config attributes without effect as information."""
    if not is_leader():
        return
    if inert := [attribute for attribute, reason in ignored.items() if reason in (INERT, NULL)]:
        LOG.info("%s", one_line(f"{name}: config attributes without effect: {', '.join(inert)}"))
    for note in notes:
        LOG.warning("%s", one_line(f"{name}: {note}"))


def _without(raw: dict[str, Any], names: Sequence[str], source: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a config without some attributes, and these with the reason "ignore_config"; they must be there."""
    ignored: dict[str, str] = {}

    def kept(part: dict[str, Any], prefix: str) -> dict[str, Any]:
        ignored.update({f"{prefix}{name}": "ignore_config" for name in names if name in part})
        inner = {name: part[name] for name in ("text_config", "vision_config") if isinstance(part.get(name), dict)}
        part = part | {name: kept(value, f"{name}.") for name, value in inner.items()}
        return {name: value for name, value in part.items() if name not in names}

    config = kept(raw, "")
    found = {name.rpartition(".")[2] for name in ignored}
    if absent := [name for name in names if name not in found]:
        raise ConfigError(f"{source}: the config has no {', '.join(absent)}; drop it from ignore_config")
    return config, ignored


def _missing_head(raw: dict[str, Any]) -> str | None:
    """Return a sentence if the config's `architectures` are no causal language model of its type; None otherwise."""
    named, known = raw.get("architectures") or [], FAMILIES[raw["model_type"]].ARCHITECTURES
    named = {*map(str, named)} if isinstance(named, list) else {str(named)}
    if not named or named & {*known}:
        return None
    return f"its architectures are {', '.join(sorted(named))}, not {known[0]}"


def _check_head(
    files: CheckpointFiles,
    name: str,
    raw: dict[str, Any],
    config: DecoderConfig,
    quantisation: Quantisation | None,
) -> None:
    """Raise CheckpointError for the weights of another architecture, such as a classifier, without an unembedding."""
    if config.tied or (head := _missing_head(raw)) is None:
        return
    unembedding = FAMILIES[config.family].UNEMBEDDING
    with files.tensors(config, quantisation) as tensors:
        if unembedding not in stored_names(config, tensors).by_canonical:
            raise CheckpointError(f"{name}: {head}, and it has no {unembedding}; use a causal language model")


def default_dtype() -> Any:
    """Return the default parameter dtype: float32 on a CPU, which emulates bfloat16, and bfloat16 elsewhere."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def _as_stored(
    files: CheckpointFiles, config: DecoderConfig, conversion: Conversion | None, quantisation: Quantisation | None
) -> tuple[DecoderConfig, tuple[str, ...]]:
    """Return the config that the weights have, and notes on how they differ from the config that was read."""
    quantised_note = () if quantisation is None else (quantisation.note,)
    if conversion is not None:
        if not config.tied or UNTIED not in conversion.weights:
            return config, quantised_note
        note = "tie_word_embeddings is true, but the source stored another unembedding; it is read, not tied"
        return dataclasses.replace(config, tied=False), (*quantised_note, note)
    with files.tensors(config, quantisation) as tensors:
        stored, notes = as_stored(config, tensors)
    return stored, quantised_note + notes + files.notes()


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path) -> str:
    """Return the SHA-256 of a weight file; in the hub's cache a file links to a blob that is named by its SHA-256."""
    link = path.readlink() if path.is_symlink() else path
    known = link.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", link.name)
    return link.name if known else _sha256(path)


def _commit(directory: Path) -> str | None:
    """Return the commit of a directory in the hub's cache (snapshots/COMMIT), or None for another directory."""
    path = directory.resolve()
    return path.name if path.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", path.name) else None


def _fetch(name: str, revision: str | None, files: Iterable[str]) -> Path:
    check_model_name(name)
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    try:
        return Path(snapshot_download(name, allow_patterns=[*files], **options))
    except Exception as error:  # the hub's client raises its own, its transport's and the operating system's errors
        at = "" if revision is None else f" at revision {revision!r}"
        raise CheckpointError(
            f"{name}: is no directory here, and the hub cannot give it{at} ({first_line(error)}); "
            "check the name and the network, or give a local checkpoint directory"
        ) from None


def _fetch_weights(name: str, revision: str | None, directory: Path) -> None:
    """Fetch the single file of weights, or else the shards of the index: what `shards` will read.

    CONFIG is fetched again because the hub's client warns where no file matches.
    """
    _fetch(name, revision, (CONFIG, SINGLE))
    if not (directory / SINGLE).exists() and (directory / INDEX).exists():
        _fetch(name, revision, shard_names(directory))


def _stop_tokens(
    directory: Path,
    raw: dict[str, Any],
    generation: dict[str, Any],
    tokenizer: Tokenizer | None,
    config: DecoderConfig,
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ids that end a text, ascending, and a note on those that the model never predicts.

    Raises:
      CheckpointError: an eos_token_id is no token id and no list of token ids.
    """
    text = raw.get("text_config")
    parts = ((CONFIG, raw), (CONFIG, text if isinstance(text, dict) else {}), (GENERATION, generation))
    ids = set() if tokenizer is None or tokenizer.eos is None else {tokenizer.eos}
    for file, settings in parts:
        if (value := settings.get("eos_token_id")) is None:
            continue
        try:
            ids.update(token_ids(value if isinstance(value, list) else [value]))
        except ValueError:
            raise CheckpointError(
                f"{directory / file}: eos_token_id is {value!r:.60}; it must be a token id, from 0 to {LAST_TOKEN_ID}, "
                "or a list of them; correct the file"
            ) from None
    unknown = sorted(token for token in ids if token >= config.vocab_size)
    note = f"end-of-sequence ids outside the vocabulary of {config.vocab_size:,} never end a text: "
    notes = (note + ", ".join(map(str, unknown)),) if unknown else ()
    return tuple(sorted(ids - {*unknown})), notes
