"""The one reader of JSON and the one of YAML, and their limits."""

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from jaxtrace.errors import ConfigError, JaxtraceError, reason_of
from jaxtrace.files import open_regular

MIB = 2**20
MAX_JSON = 16 * MIB  # bytes of a JSON document; 16 MiB parse in about a second
MAX_YAML = 1 * MIB  # bytes of a file of settings
MAX_TEXT = 1 * MIB  # bytes of a chat template or another text that is read as a whole
MAX_TOKENIZER = 256 * MIB  # bytes of tokenizer.json; Gemma 3's has 33 MiB
MAX_LINE = 4 * MIB  # bytes of a line of a file of prompts or labels
MAX_DEPTH = 100  # levels of lists and mappings in JSON and YAML
MAX_NODES = 50_000  # values in a YAML file, those of an alias counted at each use

T = TypeVar("T", bound=BaseModel)


def read_bytes(path: Path, most: int, error: type[JaxtraceError], advice: str) -> bytes:
    """Return the content of a file of at most `most` bytes; see `read_json` for the other arguments and the errors."""
    try:
        with open_regular(path) as file:
            large = os.fstat(file.fileno()).st_size > most
            content = b"" if large else file.read(most + 1)
    except OSError as cause:
        raise error(f"{path}: cannot be read ({reason_of(cause)}); {advice}") from None
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
