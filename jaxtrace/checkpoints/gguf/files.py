"""Reads GGUF files, the format of llama.cpp: their metadata, and their tensors, dequantised one part at a time.

The header is parsed here, since the reader of the library gguf loops, allocates or crashes on a header that lies, and
takes seconds for a vocabulary. Types, their block sizes, dequantization and tensor names are the library's.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from jaxtrace.checkpoints.safetensors import DTYPES
from jaxtrace.documents import MIB
from jaxtrace.errors import CheckpointError, few, reason_of
from jaxtrace.files import open_regular, path_exists
from jaxtrace.memory import format_bytes, memory_errors

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER = 256 * MIB  # bytes of metadata and tensor names; Gemma 3's vocabulary takes 10 MiB
MAX_ITEMS = 2**20  # elements of an array; the largest vocabularies have 2**18 tokens and twice as many merges
MAX_ENTRIES = 2**16  # entries of metadata, and tensors of a file
MAX_DIMENSIONS = 4
PART = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
# In the names of files that hold no model: an image encoder, and statistics for quantisation.
NO_MODEL = ("mmproj", "imatrix")
# struct's format of each type of metadata, by the library's GGUFValueType.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
FLOAT32, TEXT, ARRAY = 6, 8, 9

# Factors of the wavelengths of rotary positions, which llama.cpp stores as tensors.
ROPE_LONG, ROPE_SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_FACTORS = ("rope_freqs.weight", ROPE_LONG, ROPE_SHORT)

Stamp = tuple[int, int]  # size in bytes, and time of change in ns
Metadata = dict[str, Any]  # texts, numbers, booleans, and lists of one of them, by key


@dataclass(frozen=True)
class StoredTensor:
    """Place of a tensor in a GGUF file.

    Attributes:
      file: file that holds it.
      offset: first byte in the file.
      shape: shape of the tensor, rows first.
      kind: name of its type, such as "Q4_K".
      bytes_per_row: bytes of the last axis.
    """

    file: Path
    offset: int
    shape: tuple[int, ...]
    kind: str
    bytes_per_row: int

    @property
    def dtype(self) -> str:
        """Dtype of the tensor as it is read, under safetensors' name; block formats are dequantised to float32."""
        return self.kind if self.kind in DTYPES or re.fullmatch(r"I\d+", self.kind) else "F32"


@dataclass(frozen=True)
class GgufModel:
    """A model in a GGUF file, or in the parts of a split one.

    Attributes:
      files: file, or all parts in order.
      metadata: metadata of the first.
      tensors: place of each tensor, by llama.cpp's name.
      stamps: size and time of change of each file when its header was read.
    """

    files: tuple[Path, ...]
    metadata: Metadata
    tensors: dict[str, StoredTensor]
    stamps: dict[Path, Stamp]

    @property
    def architecture(self) -> str:
        """Name of the architecture in llama.cpp; raises CheckpointError."""
        name = self.metadata.get("general.architecture")
        if not isinstance(name, str):
            raise CheckpointError(f"{self.files[0]}: names no general.architecture; give a GGUF file of a model")
        return name


def is_gguf(path: str | Path) -> bool:
    """Return whether a path is named as GGUF."""
    return str(path).lower().endswith(".gguf")


def is_gguf_file(path: Path) -> bool:
    """Return whether a path is a file that is named as GGUF or begins so: Ollama names files by their hash."""
    try:
        if path.is_dir() or is_gguf(path):
            return not path.is_dir()
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def library(path: Path) -> ModuleType:
    """Import the library gguf; raise CheckpointError, which names the file to read, if it is not installed."""
    try:
        import gguf
    except ImportError:
        raise CheckpointError(
            f"{path}: is GGUF, and its reader is not installed; pip install 'jaxtrace[gguf]'"
        ) from None
    return gguf


def models_in(directory: Path) -> list[Path]:
    """Return the GGUF models of a directory and of the folders in it, one file of each split one."""
    models: dict[tuple[str | Path, ...], Path] = {}
    for path in sorted(file for pattern in ("*", "*/*") for file in directory.glob(pattern) if is_gguf(file)):
        no_model = path.name.startswith(".") or any(word in path.name.lower() for word in NO_MODEL)
        if path.is_file() and not no_model:
            part = PART.fullmatch(path.name)
            models.setdefault((path.parent, *part.group("prefix", "count")) if part else (path,), path)
    return list(models.values())


def only_model(directory: Path) -> Path | None:
    """Return the GGUF model that a directory holds, or None; raise CheckpointError if it holds several."""
    models = models_in(directory)
    if len(models) > 1:
        names = few([str(path.relative_to(directory)) for path in models])
        raise CheckpointError(f"{directory}: holds several GGUF models ({names}); give the path of one")
    return models[0] if models else None


def open_gguf(path: Path) -> GgufModel:
    """Read the headers of a GGUF file and, if it is a part of a split model, of the other parts.

    Raises:
      CheckpointError: the library gguf is not installed, a part is missing, a file is cut off or malformed, or a tensor
        has a type that the library cannot dequantise.
      OutOfMemoryError: a file cannot be mapped.
    """
    gguf, part = library(path), PART.fullmatch(path.name)
    names = [path.name]
    if part is not None:
        count = int(part["count"])
        names = [f"{part['prefix']}-{number:05}-of-{count:05}{part['suffix']}" for number in range(1, count + 1)]
        if path.name not in names:
            raise CheckpointError(f"{path}: is part {int(part['number'])} of {count} by its name; restore its name")
    files = tuple(path.with_name(name) for name in names)
    if missing := [file.name for file in files if not path_exists(file)]:
        raise CheckpointError(f"{path.parent}: parts of a split model are missing: {few(missing)}; download them again")
    metadata: Metadata = {}
    tensors: dict[str, StoredTensor] = {}
    stamps: dict[Path, Stamp] = {}
    for number, file in enumerate(files):
        content, stored, stamps[file] = _read_header(file, gguf)
        count = content.get("split.count", len(files)) or 1  # llama.cpp writes 0 into a file that it merged from parts
        place = content.get("split.no", number), count
        if place != (number, len(files)):
            stated = f"part {place[0]!r:.20} of {place[1]!r:.20}, counted from 0"
            raise CheckpointError(
                f"{file}: says that it is {stated}, and is read as part {number} of {len(files)}; restore the names of "
                "the parts (NAME-00001-of-00003.gguf)"
            )
        if twice := [name for name in stored if name in tensors]:
            raise CheckpointError(f"{file}: repeats tensors of another part ({few(twice)}); download the parts again")
        metadata = metadata or content
        tensors |= stored
    if (total := metadata.get("split.tensors.count", len(tensors))) != len(tensors):
        raise CheckpointError(
            f"{files[0]}: announces {total!r:.20} tensors, and the parts hold {len(tensors)}; download the parts again"
        )
    return GgufModel(files, metadata, tensors, stamps)


def open_again(model: GgufModel, path: Path) -> BufferedReader:
    """Open a file whose header was read; raise CheckpointError if it has changed since."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({reason_of(error)}); download it again") from None
    if _stamp(file) != model.stamps[path]:
        file.close()
        raise CheckpointError(f"{path}: changed while it was being read; run again when it is complete")
    return file


def _stamp(file: BufferedReader) -> Stamp:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def read_vector(model: GgufModel, name: str, size: int) -> list[float]:
    """Return the numbers of a vector that belongs to the config; raises CheckpointError for another type or size."""
    stored = model.tensors[name]
    if (stored.kind, stored.shape) != ("F32", (size,)):
        raise CheckpointError(
            f"{stored.file}: {name} has shape {list(stored.shape)} and type {stored.kind}, not [{size}] and F32; "
            "download it again"
        )
    with open_again(model, stored.file) as file:
        file.seek(stored.offset)
        return [_decimal(number) for number in np.frombuffer(file.read(4 * size), "<f4")]


def _decimal(number: Any) -> float:
    """Return the shortest decimal that rounds to a float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _read_header(path: Path, gguf: ModuleType) -> tuple[Metadata, dict[str, StoredTensor], Stamp]:
    def no_room(asked: str) -> str:
        return f"{path}: out of memory: its header cannot be read{asked}; end other programs"

    try:
        with open_regular(path) as file, memory_errors(no_room):
            if file.read(4) != MAGIC:
                raise CheckpointError(
                    f"{path}: is not a GGUF file (it does not begin with {MAGIC.decode()}); download it again"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return *_Header(path, data, gguf).read(), _stamp(file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({reason_of(error)}); download it again") from None


class _Header:
    """Parses a header, value by value, and never reads beyond its end."""

    def __init__(self, path: Path, data: mmap.mmap, gguf: ModuleType) -> None:
        self._path, self._data, self._gguf = path, data, gguf
        self._at, self._end = len(MAGIC), min(len(data), MAX_HEADER)

    def read(self) -> tuple[Metadata, dict[str, StoredTensor]]:
        version = self._number("I")
        if version & 0xFFFF == 0:
            self._fail("is a big-endian file; convert it on a little-endian machine")
        if version not in VERSIONS:
            self._fail(
                f"has GGUF version {version}, and jaxtrace reads {' and '.join(map(str, VERSIONS))}; convert it again"
            )
        tensor_count, key_count = self._count("tensors"), self._count("metadata entries")
        metadata: Metadata = {}
        for _ in range(key_count):
            key = self._text()
            if key in metadata:
                self._fail(f"has two metadata entries {key!r:.60}; download it again")
            metadata[key] = self._value(self._number("I"), key)
        places: dict[str, tuple[list[int], int, int]] = {}
        for _ in range(tensor_count):
            name = self._text()
            if name in places:
                self._fail(f"has two tensors {name!r:.60}; download it again")
            dimensions = self._number("I")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                self._fail(f"says that {name!r:.60} has {dimensions} dimensions; download it again")
            places[name] = [self._number("Q") for _ in range(dimensions)], self._number("I"), self._number("Q")
        return metadata, self._tensors(places, metadata.get("general.alignment", 32))

    def _tensors(self, places: dict[str, tuple[list[int], int, int]], alignment: Any) -> dict[str, StoredTensor]:
        """Return the place of each tensor; the tensors stand one after another, as llama.cpp requires."""
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > MIB:
            self._fail(f"has general.alignment={alignment!r:.20}, which must be a power of two; download it again")
        begin = offset = -(-self._at // alignment) * alignment
        tensors = {}
        for name, (reversed_shape, number, stated) in places.items():
            kind, block, bytes_per_block = self._kind(name, number)
            row = reversed_shape[0]
            if row % block or not all(reversed_shape):
                self._fail(
                    f"gives {name!r:.60} the shape {reversed_shape[::-1]}, impossible for {kind}; download it again"
                )
            if begin + stated != offset:
                self._fail(f"says that {name!r:.60} begins at byte {stated}, not {offset - begin}; download it again")
            bytes_per_row = row // block * bytes_per_block
            end = offset + math.prod(reversed_shape[1:]) * bytes_per_row
            if end > len(self._data):
                size = len(self._data)
                self._fail(f"is cut off: {name!r:.60} ends at byte {end:,} of {size:,}; download it again")
            tensors[name] = StoredTensor(self._path, offset, tuple(reversed_shape[::-1]), kind, bytes_per_row)
            offset = -(-end // alignment) * alignment
        return tensors

    def _kind(self, name: str, number: int) -> tuple[str, int, int]:
        """Return the name of a tensor type, the elements of its blocks and their bytes."""
        types = self._gguf.GGMLQuantizationType
        kind = types(number).name if number in [*types] else f"number {number}"
        block, size = self._gguf.GGML_QUANT_SIZES.get(number, (0, 0))
        try:
            if not re.fullmatch(r"I\d+|F64", kind):  # types without blocks, which need no dequantization
                with np.errstate(all="ignore"):
                    self._gguf.quants.dequantize(np.zeros((1, size), np.uint8), types(number))
        except (ValueError, NotImplementedError):
            self._fail(
                f"stores {name!r:.60} with the type {kind}, which the library gguf cannot dequantise; update it "
                "(pip install -U gguf), or give a file with other types"
            )
        return kind, block, size

    def _value(self, kind: int, key: str) -> Any:
        if kind == TEXT:
            return self._text()
        if kind == ARRAY:
            kind, count = self._number("I"), self._number("Q")
            if count > MAX_ITEMS:
                self._fail(f"says that {key!r:.60} has {count:,} entries; download it again")
            if kind == TEXT:
                return [self._text() for _ in range(count)]
            if kind in NUMBERS:
                dtype = np.dtype(NUMBERS[kind]).newbyteorder("<")
                return np.frombuffer(self._bytes(count * dtype.itemsize), dtype).tolist()
        elif kind in NUMBERS:
            number = self._number(NUMBERS[kind])
            return _decimal(number) if kind == FLOAT32 else number
        self._fail(f"stores {key!r:.60} with the unknown type {kind}; download it again")

    def _count(self, things: str) -> int:
        count = self._number("Q")
        if count > MAX_ENTRIES:
            self._fail(f"says that it has {count:,} {things}; download it again")
        return count

    def _bytes(self, count: int) -> bytes:
        begin, self._at = self._at, self._at + count
        if self._at > self._end:
            large = self._end < len(self._data)
            problem = f"has a header of more than {format_bytes(MAX_HEADER)}" if large else "is cut off in its header"
            self._fail(f"{problem}; download it again")
        return self._data[begin : self._at]

    def _number(self, form: str) -> Any:
        form = f"<{form}"
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self) -> str:
        content = self._bytes(int.from_bytes(self._bytes(8), "little"))
        try:
            return content.decode()
        except UnicodeDecodeError:
            self._fail(f"holds {content!r:.60}, which is not UTF-8; download it again")

    def _fail(self, problem: str) -> NoReturn:
        raise CheckpointError(f"{self._path}: {problem}")
