"""Client of an OpenAI-compatible chat API that stores replies, so that each question is paid for once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import openai
from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxtrace.documents import read_json
from jaxtrace.errors import ConfigError, StudyError
from jaxtrace.files import write_atomically

T = TypeVar("T", bound=BaseModel)

KEY = "OPENAI_API_KEY"
CONCURRENT_REQUESTS = 8
MAX_BYTES = 1 << 20  # of a response; the rest is not read
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

    It is a context manager: requests run in an event loop of its own thread, since a notebook's thread has one already.
    """

    def __init__(self, url: str, model: str, cache: Path, *, timeout: float = 60.0, retries: int = 3) -> None:
        """Connect to a model behind a server.

        Args:
          url: base URL, such as "https://api.openai.com/v1" or "http://localhost:8000/v1".
          model: name of the model on the server.
          cache: directory of stored replies; created if missing.
          timeout: most seconds for a question, from the connection to the last byte, with all pauses and retries.
          retries: number of times to repeat a request, after growing pauses, if the server is busy or fails.

        Raises:
          StudyError: the URL is not one of a chat API, or the key cannot be sent.
        """
        key = os.environ.get(KEY) or "none"  # local servers need no key
        if not (key.isascii() and key.isprintable()):
            raise StudyError(f"${KEY}: holds characters that no key has; set it again")
        self.model = model
        self._shown = _without_secrets(url)
        self._url, self._cache, self._timeout, self._retries = url, cache, timeout, retries
        self._key, self._exit = key, ExitStack()

    def __enter__(self) -> Self:
        client = openai.AsyncOpenAI(
            base_url=self._url,
            api_key=self._key,
            timeout=self._timeout,
            max_retries=self._retries,
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_limit]}),
        )
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            self._client = stack.enter_context(self._portal.wrap_async_context_manager(client))
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

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
        counts, answered = Counter(files), SimpleQueue[Path | None]()
        asking = self._portal.start_task_soon(
            self._ask_each, dict(zip(files, requests, strict=True)), kind, answered.put
        )
        asking.add_done_callback(lambda _: answered.put(None))
        try:
            for file in iter(answered.get, None):
                on_answer(counts[file])
            replies = asking.result()
        finally:  # after Ctrl-C
            asking.cancel()
        return [replies[file] for file in files]

    async def _ask_each(
        self, requests: dict[Path, dict[str, Any]], kind: type[T], on_answer: Callable[[Path], None]
    ) -> dict[Path, Reply[T]]:
        free, replies = asyncio.Semaphore(CONCURRENT_REQUESTS), {}

        async def ask(file: Path, request: dict[str, Any]) -> None:
            async with free:
                replies[file] = await self._ask(file, request, kind)
            on_answer(file)

        tasks = [asyncio.ensure_future(ask(*item)) for item in requests.items()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return replies

    async def _ask(self, file: Path, request: dict[str, Any], kind: type[T]) -> Reply[T]:
        reply = _stored_reply(file, request)
        if reply is None:
            try:
                async with asyncio.timeout(self._timeout):
                    reply = await self._send(request)
            except (TimeoutError, openai.APITimeoutError):
                return Reply(None, "no answer in time")
            except openai.APIConnectionError:
                raise StudyError(f"{self._shown}: cannot be reached; start the server, or correct the URL") from None
            except FATAL as error:
                raise StudyError(
                    f"{self._shown}: refuses {self.model} with status {error.status_code}; "
                    f"correct the URL, the model's name, or ${KEY}"
                ) from None
            except openai.APIStatusError as error:
                named = re.fullmatch(r"[\w.\[\]]{1,60}", str(error.param or ""), re.ASCII)  # the server's text
                return Reply(None, f"status {error.status_code}" + (f" ({named[0]})" if named else ""))
            except ValidationError:
                return Reply(None, "a response that is not a chat API's")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps({"request": request, "reply": reply}, indent=1), shared=True)
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

    async def _send(self, request: dict[str, Any]) -> str:
        response = await self._client.chat.completions.with_raw_response.create(**request)
        return _Completion.model_validate_json(response.content).choices[0].message.content or ""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


async def _limit(response: Any) -> None:
    """Let a response be read only up to MAX_BYTES, and neither be unpacked nor decoded by a codec of its choice."""
    read = response.aiter_bytes

    async def beginning() -> AsyncIterator[bytes]:
        size = 0
        async for chunk in read():
            size += len(chunk)
            yield chunk
            if size > MAX_BYTES:
                await response.aclose()
                return

    response.aiter_bytes = beginning
    response.headers.pop("content-encoding", None)
    response.headers["content-type"] = "application/json"


def _stored_reply(file: Path, request: dict[str, Any]) -> str | None:
    """Return the reply that a file stores for a request; None if there is none, or the file is damaged or foreign."""
    try:
        stored = read_json(file) if file.exists() else {}
    except ConfigError:
        return None
    reply = stored.get("reply")
    return reply if isinstance(reply, str) and stored.get("request") == request else None


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
