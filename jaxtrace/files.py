"""The one reader of JSON and the one of YAML, their limits, the atomic file writer, the rule for outputs that exist."""

import errno
import json
import math
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from jaxtrace.errors import ConfigError, JaxtraceError, StoreError

NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
TEMPORARY = ".*.tmp"  # pattern of the names of unfinished files
PROBE_BYTES = 4096

MIB = 2**20
MAX_JSON = 16 * MIB  # bytes of a JSON document; 16 MiB parse in about a second
MAX_YAML = 1 * MIB  # bytes of a file of settings
MAX_TEXT = 1 * MIB  # bytes of a chat template or another text that is read as a whole
MAX_TOKENIZER = 256 * MIB  # bytes of tokenizer.json; Gemma 3's has 33 MiB
MAX_LINE = 4 * MIB  # bytes of a line of a file of prompts or labels
MAX_DEPTH = 100  # levels of lists and mappings in JSON and YAML
MAX_NODES = 50_000  # values in a YAML file, those of an alias counted at each use
LOCK = ".jaxtrace.lock"  # name of the lock file in a directory that is being written, see `WriteLock`

T = TypeVar("T", bound=BaseModel)


def path_exists(path: str | Path) -> bool:
    """Return whether there is a file or directory; False for a name that no file can have, such as a too long one."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes, and never wait for a writer.

    Raises:
      OSError: the file is missing, unreadable, or not a regular file: a directory, a named pipe, a device, a socket.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return file


def read_bytes(path: Path, most: int, error: type[JaxtraceError], advice: str) -> bytes:
    """Return the content of a file of at most `most` bytes; see `read_json` for the other arguments and the errors."""
    try:
        with open_regular(path) as file:
            large = os.fstat(file.fileno()).st_size > most
            content = b"" if large else file.read(most + 1)
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror or cause}); {advice}") from None
    if large or len(content) > most:  # /proc has files of size 0 that are not empty
        raise error(f"{path}: is larger than {most / MIB:.3g} MiB; {advice}")
    return content


def read_text(path: Path, error: type[JaxtraceError], advice: str) -> str:
    """Return the content of a UTF-8 file of at most `MAX_TEXT` bytes; arguments and errors as for `read_json`."""
    try:
        return read_bytes(path, MAX_TEXT, error, advice).decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(f"{path}: cannot be read (not UTF-8: {cause.reason}); {advice}") from None


def decode_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Return the value that a JSON document holds.

    Args:
      content: document; bytes are UTF-8, and a byte order mark is dropped.
      finite: True refuses NaN, Infinity and numbers beyond float64, which JSON does not have but Python reads.

    Raises:
      JSONDecodeError: the document is not JSON.
      ValueError: a key is repeated, lists and objects are nested deeper than `MAX_DEPTH`, a text holds half a surrogate
        pair, an integer has more than 4,300 digits, or a number is not finite.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    numbers: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite} if finite else {}
    try:
        value = json.loads(text, object_pairs_hook=_distinct, **numbers)
        _check_depth(value)
        if r"\u" in text:  # only an escape can write half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(_reason(error)) from None
    return value


def read_json(
    path: Path,
    error: type[JaxtraceError] = ConfigError,
    advice: str = "give a JSON file",
    *,
    finite: bool = True,
) -> dict[str, Any]:
    """Return the mapping that a JSON file holds.

    Args:
      path: regular file of at most `MAX_JSON` bytes, UTF-8.
      error: class of the error to raise.
      advice: end of its message, which says what the user can do.
      finite: see `decode_json`; False for files of Hugging Face, which write Infinity.

    Raises:
      JaxtraceError: the file is missing, unreadable, too large, not JSON within the limits of `decode_json`, or not a
        mapping.
    """
    content = read_bytes(path, MAX_JSON, error, advice)
    try:
        mapping = decode_json(content, finite=finite)
    except ValueError as cause:
        raise error(f"{path}: not valid JSON ({cause}); {advice}") from None
    if not isinstance(mapping, dict):
        raise error(f"{path}: not a JSON object; {advice}")
    return mapping


def read_model(kind: type[T], path: Path, error: type[JaxtraceError], problem: str, advice: str) -> T:
    """Return the pydantic model that a JSON file describes.

    Args:
      kind: class of the model.
      path: file to read, as in `read_json`.
      error: class of the error to raise.
      problem: middle of its message about a document that is not JSON or has a wrong field; the reason follows it.
      advice: end of its message, which says what the user can do.

    Raises:
      JaxtraceError: an error of `read_json`, or a field is unknown, missing or out of range.
    """
    content = read_bytes(path, MAX_JSON, error, advice)
    try:
        return kind.model_validate(decode_json(content))
    except ValidationError as cause:
        reason = first_problem(cause)
    except ValueError as cause:
        reason = str(cause)
    raise error(f"{path}: {problem} ({reason}); {advice}")


def first_problem(error: ValidationError) -> str:
    """Return the first problem that pydantic names, after the path of its field: "classes.0.people: Field required"."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"]


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of settings that a YAML file holds; dates are texts.

    Args:
      path: regular file of at most `MAX_YAML` bytes, UTF-8.

    Raises:
      ConfigError: the file is missing, unreadable, too large, not YAML, or not a mapping; it has a tag, a repeated key,
        an alias of itself, more than `MAX_NODES` values, or lists and mappings deeper than `MAX_DEPTH`.
    """
    content = read_bytes(path, MAX_YAML, ConfigError, "give a YAML file of settings")
    try:
        text = content.decode("utf-8-sig")
        _check_events(text)
        mapping = yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read (not UTF-8: {error.reason}); save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML ({_reason(error)}); correct the file") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: not a YAML mapping of settings; write one `name: value` per line")
    return mapping


_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the former needs libyaml, and is faster


class _Loader(_SAFE_LOADER):
    """YAML's safe loader without dates and numbers of base 60: 2024-01-31 and 3:0 are texts."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def number(self, node: Any) -> Any:
        """Return the number that a scalar writes, or its text if it has a colon."""
        if ":" in node.value:
            return node.value
        value = self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        str(value)  # fails for an integer, such as a hexadecimal one, that no message could show
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)


def _check_events(text: str) -> None:
    """Raise ValueError for a YAML text that `read_yaml` refuses before anything is built from it."""
    nodes = 0
    inside: list[tuple[str | None, int, list[str | None] | None]] = []  # (anchor, nodes before it, keys and values)
    anchors: dict[str | None, int] = {}  # nodes of each finished collection or scalar
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before, names = inside.pop()
            anchors[anchor] = nodes - before
            keys = [name for name in (names or [])[::2] if name is not None]
            if repeated := [key for key, count in Counter(keys).items() if count > 1]:
                raise ValueError(f"two entries are named {repeated[0]!r:.60}; keep one")
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        scalar = event.value if isinstance(event, yaml.ScalarEvent) else None
        if tag := getattr(event, "tag", None):
            raise ValueError(f"the tag {tag.replace('tag:yaml.org,2002:', '!!')!r:.60}; write the value without a tag")
        if inside and inside[-1][2] is not None:
            inside[-1][2].append(scalar)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise ValueError(f"the alias {event.anchor!r:.60} names nothing that ends before it")
            nodes += anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            event.value.encode()  # fails for half a surrogate pair, which libyaml refuses by itself
            nodes += 1
            anchors[event.anchor] = 1
        else:
            anchors.pop(event.anchor, None)
            inside.append((event.anchor, nodes, [] if isinstance(event, yaml.MappingStartEvent) else None))
            nodes += 1
        if len(inside) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES:,} values, those of an alias counted at each use")


def _reason(error: Exception) -> str:
    """Return what is wrong with a document, in one line."""
    if isinstance(error, RecursionError):
        return f"nested deeper than {MAX_DEPTH} levels"
    text = " ".join(str(error).split())
    return "an integer has more than 4,300 digits" if "integer string conversion" in text else text


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"two entries are named {repeated!r:.60}; keep one")
    return mapping


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text:.20} is beyond the range of a float64")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return
        level = [child for each in containers for child in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def write_atomically(path: Path, content: str | bytes, *, shared: bool = False) -> None:
    """Write a whole file or nothing; text is encoded as UTF-8. See `atomic_file`."""
    with atomic_file(path, shared=shared) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under its name only once it is complete and synced to the disk.

    All files of jaxtrace are written here, except those of Orbax, TensorBoard, and JAX's profiler and compile cache.
    Until then its name is `.NAME.tmp`, which readers of a directory of Parquet files ignore. An error or an interrupt
    deletes it; the next write of the same name replaces one that a kill has left behind. A symbolic link in place of
    either file is never followed; the directory may be one.

    Args:
      path: file to write or replace; its directory must exist.
      shared: True if several processes may write this file at once; the temporary name then contains the process id.

    Yields:
      The temporary file, open for writing.

    Raises:
      StoreError: the path is a link, a directory or a device, or another process is writing it.
      OSError: the file cannot be written; its `filename` is the path.
    """
    _refuse_irregular(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, NEW_FILE, 0o666), "w+b") as file:
            identity = os.fstat(file.fileno())
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if not _is_file(temporary, identity):
                    raise StoreError(f"{path}: another process is writing it; wait for its end, or name another place")
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    file.close()
                with suppress(OSError):
                    if _is_file(temporary, identity):
                        temporary.unlink()
                raise
        _sync_directory(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def check_writable(directory: Path, size: int = PROBE_BYTES) -> None:
    """Check that files can be written below a directory, which need not exist; called before expensive work.

    Args:
      size: bytes that the files will take.

    Raises:
      OSError: the disk is full or read-only, permission is missing, or a file is in the way; its `filename` is the
        directory.
    """
    try:
        existing = next(folder for folder in (directory, *directory.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        if (free := shutil.disk_usage(existing).free) < size:
            reason = f"{os.strerror(errno.ENOSPC)} ({size / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free)"
            raise OSError(errno.ENOSPC, reason)
    except OSError as error:
        error.filename = str(directory)
        raise


def claim_file(out: Path, *, overwrite: bool = False) -> None:
    """Refuse an output file that exists (unless `overwrite`) or cannot be written; see `claim_directory`."""
    _refuse_irregular(out)
    if not overwrite and out.exists() and out.stat().st_size:
        raise StoreError(f"{out}: exists already; replace it with --overwrite, or name another file")
    check_writable(out.parent)


def claim_directory(
    out: Path, last: str, own: Sequence[str], *, overwrite: bool = False, resume: bool | None = None
) -> None:
    """Refuse an output directory that is in use or cannot be written; called before the work that fills it.

    The one rule for `--out`: a missing, empty or unfinished output is written; a finished one and other files are
    refused.

    Args:
      last: name of the file that is written last; with it the output is finished.
      own: patterns of the names of the other files and directories in such an output.
      overwrite: True accepts everything; the caller replaces files of its own names.
      resume: True also accepts a finished output; None if the command has no such option.

    Raises:
      StoreError: the directory is a file, or holds a finished output or other files.
      OSError: the directory cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file; name a directory")
    names = [path.name for path in out.iterdir()] if out.exists() else []
    foreign = [name for name in names if not any(fnmatch(name, each) for each in (last, *own, TEMPORARY, LOCK))]
    if not overwrite and (foreign or (last in names and not resume)):
        problem = f"holds {min(foreign)}" if foreign else f"holds a finished result, {last}"
        ways = "continue it with --resume, " if resume is False and not foreign else ""
        raise StoreError(f"{out}: {problem}; {ways}replace it with --overwrite, or name another directory")
    check_writable(out)


def _refuse_irregular(path: Path) -> None:
    """Raise StoreError if a path exists and is not a regular file; a link is not followed."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise StoreError(f"{path}: is {kind}, which is never replaced; name another file")


def _is_file(path: Path, identity: os.stat_result) -> bool:
    """Return True if a path leads to a file, itself and not through a link."""
    try:
        return os.path.samestat(path.lstat(), identity)
    except FileNotFoundError:
        return False


def _sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut, where the file system can."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync no directories
            raise
    finally:
        os.close(descriptor)
