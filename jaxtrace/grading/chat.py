"""Client of an OpenAI-compatible chat API that stores replies, so that each question is paid for once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import openai
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxtrace.errors import StudyError
from jaxtrace.files import write_atomically

T = TypeVar("T", bound=BaseModel)

KEY = "OPENAI_API_KEY"
CONCURRENT_REQUESTS = 8
# Errors that every further question would meet too.
FATAL = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


@dataclass(frozen=True)
class Reply(Generic[T]):
    """Reply of a model.

    Attributes:
      value: validated reply; None if there is none.
      why: reason why there is no value; "" if there is one.
    """

    value: T | None
    why: str = ""


class StructuredReply(BaseModel):
    """Base of the models of a reply. Structured outputs need one without additional fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Chat:
    """Connection to a model that replies with JSON of a given schema.

    Replies are stored in a directory, one file per request, named by the hash of the request; a stored reply is never
    requested again, even if it is invalid. The API key is read from $OPENAI_API_KEY, sent to the model's server, and
    neither stored nor printed.
    """

    def __init__(self, url: str, model: str, cache: Path, *, timeout: float = 60.0, retries: int = 3) -> None:
        """Connect to a model behind a server.

        Args:
          url: base URL, such as "https://api.openai.com/v1" or "http://localhost:8000/v1".
          model: name of the model on the server.
          cache: directory of stored replies; created if missing.
          timeout: seconds to wait for each response.
          retries: number of times to repeat a request, after growing pauses, if the server is busy, fails or times out.

        Raises:
          StudyError: the URL is not one of a chat API.
        """
        self.model = model
        self._shown = _without_secrets(url)
        self._url, self._cache = url, cache
        key = os.environ.get(KEY) or "none"  # local servers need no key
        self._client = openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask_all(
        self,
        system: str,
        data: Sequence[dict[str, str]],
        kind: type[T],
        on_answer: Callable[[int], None] = lambda _: None,
    ) -> list[Reply[T]]:
        """Send one request per item of data, several at a time; equal items are sent once.

        Args:
          system: instruction to the model.
          data: items, each sent as JSON so that no text in it can pass for an instruction.
          kind: schema of a reply.
          on_answer: callback, called at each reply with the number of items that it serves.

        Returns:
          Reply to each item; without a value if the server timed out or failed, or the reply does not fit `kind`.

        Raises:
          StudyError: the server cannot be reached, refuses the key, or does not have the model. Replies until then stay
            stored.
        """
        requests = [self._request(system, item, kind) for item in data]
        files = [self._cache / f"{_hash({'url': self._url, **request})}.json" for request in requests]
        replies: dict[Path, Reply[T]] = {}
        pool = ThreadPoolExecutor(CONCURRENT_REQUESTS)
        try:
            unique = dict(zip(files, requests, strict=True))
            pending = {pool.submit(self._ask, file, request, kind): file for file, request in unique.items()}
            for future in as_completed(pending):
                file = pending[future]
                replies[file] = future.result()
                on_answer(files.count(file))
        finally:
            pool.shutdown(cancel_futures=True)
        return [replies[file] for file in files]

    def _ask(self, file: Path, request: dict[str, Any], kind: type[T]) -> Reply[T]:
        if not file.exists():
            try:
                content = self._send(request)
            except openai.APITimeoutError:
                return Reply(None, "no answer in time")
            except openai.APIConnectionError:
                raise StudyError(f"{self._shown}: cannot be reached; start the server, or correct the URL") from None
            except FATAL as error:
                raise StudyError(
                    f"{self._shown}: refuses {self.model} with status {error.status_code}; "
                    f"correct the URL, the model's name, or ${KEY}"
                ) from None
            except openai.APIStatusError as error:
                about = f" ({error.param})" if error.param else ""
                return Reply(None, f"status {error.status_code}{about}")
            except ValidationError:
                return Reply(None, "a response that is not a chat API's")
            file.parent.mkdir(parents=True, exist_ok=True)
            stored = json.dumps({"request": request, "reply": content}, ensure_ascii=False, indent=1)
            write_atomically(file, stored, shared=True)
        reply = json.loads(file.read_text(encoding="utf-8"))["reply"]
        try:
            return Reply(kind.model_validate_json(reply))
        except ValidationError:
            return Reply(None, "a reply that does not fit the schema")

    def _request(self, system: str, data: dict[str, str], kind: type[BaseModel]) -> dict[str, Any]:
        schema = {"name": kind.__name__.lower(), "strict": True, "schema": kind.model_json_schema()}
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": json.dumps(data, ensure_ascii=False, indent=1)},
            ],
            "response_format": {"type": "json_schema", "json_schema": schema},
            "temperature": 0,
        }

    def _send(self, request: dict[str, Any]) -> str:
        response = self._client.chat.completions.with_raw_response.create(**request)
        return _Completion.model_validate_json(response.content).choices[0].message.content or ""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def _without_secrets(url: str) -> str:
    """Return a URL without password and query, or raise StudyError if it is not a URL of http or https."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _no_url(url) from None
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"(\[[\da-fA-F:]+\]|[\w.-]+)(:\d+)?", host):
        raise _no_url(url)
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _no_url(text: str) -> StudyError:
    """Return the error for a text that is not a URL; it shows neither user, password nor query."""
    without_query = re.split("[?#]", text, maxsplit=1)[0]
    shown = "" if "@" in text[len(without_query) :] else without_query.rpartition("@")[2]
    return StudyError(
        f"{shown or 'the given URL'}: not the URL of a chat API; give one such as http://localhost:8000/v1"
    )


def _hash(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
