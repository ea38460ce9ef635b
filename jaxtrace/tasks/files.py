"""Prompt files of a user: .txt, .jsonl and .csv."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import read_csv, read_jsonl, read_lines, take

TEXT_FIELDS = ("prompt", "text", "question")


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the prompts of a file.

    .txt: each line is a prompt; its spaces are kept.
    .jsonl: each line is a JSON string, or an object with the text under "prompt", "text" or "question" (the first of
    these that it has) or token ids under "tokens". An object may have an "id" and, for a multimodal model, a file or a
    list of files under "images", relative to the prompt file.
    .csv: the file has a header row, and the text is in a column with one of those three names or in the only column.
    Other fields become `meta`. A prompt without an id is named after the file and its index: "mine-0000".

    Args:
      path: file of prompts.
      limit: maximum number of prompts; None for all. Later rows are not read.

    Raises:
      PromptError: no file is named; the file is missing, a directory, not UTF-8, empty or of another kind; a row is
        empty or broken; two prompts share an id. The message names the file and the line.
    """
    if path is None:
        raise PromptError("prompts: the task has no file; name one with --data FILE")
    reader = READERS.get(path.suffix.lower())
    if path.is_dir():
        raise PromptError(f"{path}: is a directory; name one {', '.join(READERS)} file in it")
    if reader is None:
        raise PromptError(f"{path}: no kind of prompt file ends in '{path.suffix}'; give one of {', '.join(READERS)}")
    return take(_prompts(path, reader(path)), limit, path)


def _prompts(path: Path, records: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Prompt]:
    lines: dict[str, int] = {}
    for index, (line, record) in enumerate(records):
        try:
            prompt = _prompt(record, f"{path.stem}-{index:04d}", path.parent)
            if prompt.id in lines:
                raise ValueError(f"the id '{prompt.id}' is taken by line {lines[prompt.id]}; give each prompt its own")
        except ValueError as error:
            raise PromptError(f"{path}, line {line}: {error}") from None
        lines[prompt.id] = line
        yield prompt


def _prompt(record: dict[str, Any], default_id: str, directory: Path) -> Prompt:
    meta = dict(record)
    name = meta.pop("id", default_id)
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise ValueError("the id is not a text; write it in quotes, or delete it")
    images = _images(meta.pop("images", []), directory)
    field = next((key for key in TEXT_FIELDS if key in record), None)
    if "tokens" in record:
        if field:
            raise ValueError(f"both '{field}' and 'tokens'; keep one of them")
        return Prompt(tokens=_tokens(meta.pop("tokens")), id=name, images=images, meta=meta)
    if field is None:
        raise ValueError("no 'prompt', 'text', 'question' or 'tokens'; give the prompt one of these names")
    text = meta.pop(field)
    if not isinstance(text, str):
        raise ValueError(f"'{field}' is not a text; put it in quotes")
    if not text.strip():
        raise ValueError("an empty prompt; delete the row or write a text there")
    return Prompt(text=text, id=name, images=images, meta=meta)


def _images(images: Any, directory: Path) -> tuple[str, ...]:
    names = [images] if isinstance(images, str) else images
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("'images' is not a file name or a list of them; write it as \"photo.jpg\"")
    return tuple(str(directory / name) for name in names)


def _tokens(tokens: Any) -> tuple[int, ...]:
    if not isinstance(tokens, list) or not all(type(t) is int and 0 <= t < 2**31 for t in tokens):
        raise ValueError("'tokens' is not a list of token ids; write it as [1, 2, 3]")
    if not tokens:
        raise ValueError("'tokens' is empty; delete the row or give at least one id")
    return tuple(tokens)


def _txt(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in read_lines(path):
        yield line, {"prompt": text.rstrip("\r\n")}


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, record in read_jsonl(path):
        if isinstance(record, str):
            record = {"prompt": record}
        if not isinstance(record, dict):
            raise PromptError(f"{path}, line {line}: neither an object nor a string; write one of them")
        yield line, record


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in read_csv(path):
        if not row.keys() & set(TEXT_FIELDS):
            if len(row) > 1:
                columns = ", ".join(row)
                raise PromptError(
                    f"{path}, line 1: no column 'prompt', 'text' or 'question' among {columns}; rename one"
                )
            row = {"prompt": next(iter(row.values()))}
        yield line, row


READERS = {".txt": _txt, ".jsonl": _jsonl, ".csv": _csv}
