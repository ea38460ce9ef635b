"""Prompt files of a user: .txt, .jsonl and .csv."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtrace.errors import PromptError
from jaxtrace.prompts import SYSTEM_ROLES, Prompt, chat_messages, token_ids
from jaxtrace.settings.groups import PROMPT, SAMPLING
from jaxtrace.settings.run import RunConfig
from jaxtrace.tasks.reading import DELIMITERS, read_cells, read_csv, read_jsonl, read_lines, take

TEXT_FIELDS = ("prompt", "text", "question")
FIELDS = (*TEXT_FIELDS, "messages", "tokens", "system", "images", "id")
# Names that read like settings: as metadata they would silently have no effect. The settings of a run whose names are
# usual in data sets stay metadata.
METADATA = {"text", "task", "data", "prompts", "limit", "sample", "samples", "score"}
OTHER_SETTINGS = """
    add_generation_prompt bad_words_ids chat_template chat_template_kwargs continue_final_message do_sample
    enable_thinking eos_token_id frequency_penalty generation_config ignore_eos logit_bias max_completion_tokens
    max_length max_tokens min_length min_new_tokens min_tokens no_repeat_ngram_size num_beams num_return_sequences
    presence_penalty reasoning_effort repetition_penalty response_format sampling_params stop_sequences stop_strings
    stop_token_ids stop_tokens template_args template_kwargs tools typical_p
"""
MISSPELT = {
    **{"system": "system", "systemprompt": "system", "systemmessage": "system"},
    **{"messages": "messages", "message": "messages", "image": "images"},
}


def _letters(name: str) -> str:
    """Return a name without case and punctuation: "topp" for topP, top-p and TOP_P."""
    return re.sub(r"[^a-z]", "", name.lower())


def _is_setting(extra: Any) -> bool:
    return isinstance(extra, dict) and extra["group"] in (PROMPT["group"], SAMPLING["group"])


OWN_SETTINGS = {name for name, field in RunConfig.model_fields.items() if _is_setting(field.json_schema_extra)}
SETTINGS = frozenset(map(_letters, {*OWN_SETTINGS, *OTHER_SETTINGS.split()} - METADATA))


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the prompts of a file.

    .txt: each line is a prompt; its spaces are kept.
    .jsonl: each line is a JSON string, or an object with the text under "prompt", "text" or "question" (the first of
    these that it has), the turns of a chat under "messages", or token ids under "tokens". An object may have an "id", a
    "system" message that precedes the text and, for a multimodal model, a file or a list of files under "images",
    relative to the prompt file.
    .csv: the first row names the columns; the text is in a column with one of those three names. Commas, semicolons,
    tabs or vertical bars separate the cells.
    Other fields become `meta`, unless they read like settings. A prompt without an id is named after the file and its
    index: "mine-0000".

    Args:
      path: file of prompts.
      limit: maximum number of prompts; None for all. Later rows are not read.

    Raises:
      PromptError: no file is named; the file is missing, a directory, not UTF-8, empty or of another kind; a row is
        empty or broken, or has a setting; two prompts share an id. The message names the file and the line.
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
    system = meta.pop("system", None) or ""
    if not isinstance(system, str):
        raise ValueError("'system' is not a text; put it in quotes")
    field = next((key for key in TEXT_FIELDS if key in record), None)
    if len(sources := [key for key in (field, "messages", "tokens") if key in record]) > 1:
        raise ValueError(f"both '{sources[0]}' and '{sources[1]}'; keep one of them")
    if not sources:
        raise ValueError("no 'prompt', 'text', 'question', 'messages' or 'tokens'; give the prompt one of these names")
    content = meta.pop(sources[0])
    _refuse_settings(meta)
    if sources == ["tokens"]:
        if system:
            raise ValueError("'system' beside 'tokens'; put the ids of the whole chat into 'tokens'")
        return Prompt(tokens=_tokens(content), id=name, images=images, meta=meta)
    if sources == ["messages"]:
        messages = chat_messages(content)
        if system and messages[0]["role"] in SYSTEM_ROLES:
            raise ValueError(f"'system' beside a turn of the {messages[0]['role']} in 'messages'; keep one of them")
    else:
        if not isinstance(content, str):
            raise ValueError(f"'{field}' is not a text; put it in quotes")
        if not content.strip():
            raise ValueError("an empty prompt; delete the row or write a text there")
        messages = ({"role": "user", "content": content},)
    text = messages[-1]["content"]
    if system.strip():
        messages = ({"role": "system", "content": system}, *messages)
    return Prompt(text, None, name, images, meta, messages if "messages" in record or system.strip() else None)


def _refuse_settings(meta: dict[str, Any]) -> None:
    """Raise ValueError for a field that reads like a setting, in any spelling."""
    for name in meta:
        if field := MISSPELT.get(_letters(name)):
            raise ValueError(f"'{name}' is not a field of a prompt; write it as '{field}', or rename it")
        if _letters(name) in SETTINGS:
            raise ValueError(f"'{name}' is a setting of a run, not a prompt's; give it to the run, or rename the field")


def _images(images: Any, directory: Path) -> tuple[str, ...]:
    names = [images] if isinstance(images, str) else images
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("'images' is not a file name or a list of them; write it as \"photo.jpg\"")
    return tuple(str(directory / name) for name in names)


def _tokens(tokens: Any) -> tuple[int, ...]:
    try:
        ids = token_ids(tokens)
    except ValueError as error:
        raise ValueError(f"'tokens': {error}") from None
    if not ids:
        raise ValueError("'tokens' is empty; delete the row or give at least one id")
    return ids


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
    headers = {delimiter: _header(path, delimiter) for delimiter in DELIMITERS}
    delimiter = next((d for d, names in headers.items() if {name.lower() for name in names} & {*TEXT_FIELDS}), None)
    if delimiter is None:
        if any(True for _ in read_lines(path)):
            raise PromptError(
                f"{path}, line 1: no column 'prompt', 'text' or 'question' among {', '.join(headers[',']):.60}; "
                "name the columns in the first row"
            )
        return
    for line, row in read_csv(path, delimiter):
        known = {name: name.lower() for name in row if name.lower() in FIELDS and name.lower() not in row}
        yield line, {known.get(name, name): cell for name, cell in row.items()}


def _header(path: Path, delimiter: str) -> list[str]:
    """Return the first row's cells; none if they are broken under this delimiter."""
    try:
        return next(read_cells(path, delimiter), (1, []))[1]
    except PromptError as error:
        if isinstance(error.__cause__, csv.Error):
            return []
        raise


READERS = {".txt": _txt, ".jsonl": _jsonl, ".csv": _csv}
