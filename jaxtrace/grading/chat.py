"""Questions to a model behind the OpenAI-compatible chat API, each paid for once."""

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

T = TypeVar("T", bound=BaseModel)

KEY = "OPENAI_API_KEY"
AT_ONCE = 8  # requests that wait for an answer at the same time
NEVER = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)  # no question gets an answer


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What a model said.

    Attributes:
      value: the validated answer; None where there is none.
      why: why there is none; "" where there is one.
    """

    value: T | None
    why: str = ""


class Shape(BaseModel):
    """An answer's shape, as strict as structured outputs want it: no field besides those named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Chat:
    """A model that answers with JSON of a given shape.

    Answers are kept in a directory, one file for each request, under the hash of all that is sent; what was answered is
    not asked again, nonsense included. The API key is read from $OPENAI_API_KEY, sent to the model's server, and
    neither stored nor printed.
    """

    def __init__(self, url: str, model: str, cache: Path, *, timeout: float = 60.0, retries: int = 3):
        """For a model behind a server.

        Args:
          url: the base URL, such as "https://api.openai.com/v1" or "http://localhost:8000/v1".
          model: its name there.
          cache: a directory, made if need be.
          timeout: seconds to wait for the server each time.
          retries: how often a request is sent again, after longer and longer pauses, where the server is busy, fails
            or does not answer in time.

        Raises:
          StudyError: the URL is none.
        """
        self.model = model
        self._shown = _without_secrets(url)
        self._url, self._cache = url, cache
        key = os.environ.get(KEY) or "none"  # servers of one's own ask for none
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
        """Asks about many things, several at once; equal ones once.

        Args:
          system: what to do.
          data: what to do it with. Each is sent as JSON, so that no text in it can pass for more than a value.
          kind: the shape of an answer.
          on_answer: called with how many of `data` an answer serves, as they come in.

        Returns:
          For each of `data` the answer, or why there is none: the server did not answer in time, failed, or said what
          is no `kind`.

        Raises:
          StudyError: the server cannot be reached, refuses the key, or does not have the model. Answers until then are
            kept.
        """
        requests = [self._request(system, one, kind) for one in data]
        places = [self._cache / f"{_hash({'url': self._url, **request})}.json" for request in requests]
        replies: dict[Path, Reply[T]] = {}
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            unique = dict(zip(places, requests, strict=True))
            begun = {pool.submit(self._ask, place, request, kind): place for place, request in unique.items()}
            for future in as_completed(begun):
                place = begun[future]
                replies[place] = future.result()
                on_answer(places.count(place))
        finally:
            pool.shutdown(cancel_futures=True)
        return [replies[place] for place in places]

    def _ask(self, place: Path, request: dict[str, Any], kind: type[T]) -> Reply[T]:
        if not place.exists():
            try:
                said = self._send(request)
            except openai.APITimeoutError:
                return Reply(None, "no answer in time")
            except openai.APIConnectionError:
                raise StudyError(f"{self._shown}: cannot be reached; start the server, or mend the URL") from None
            except NEVER as error:
                what = f"{self._shown}: refuses {self.model} with status {error.status_code}"
                raise StudyError(f"{what}; mend the URL, the model's name, or ${KEY}") from None
            except openai.APIStatusError as error:
                about = f" ({error.param})" if error.param else ""
                return Reply(None, f"status {error.status_code}{about}")
            except ValidationError:
                return Reply(None, "an answer that is none of a chat API")
            _write(place, {"request": request, "reply": said})
        reply = json.loads(place.read_text(encoding="utf-8"))["reply"]
        try:
            return Reply(kind.model_validate_json(reply))
        except ValidationError:
            return Reply(None, "an answer of another shape")

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
        answer = self._client.chat.completions.with_raw_response.create(**request)
        return _Answer.model_validate_json(answer.content).choices[0].message.content or ""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Answer(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def _without_secrets(url: str) -> str:
    """A URL as it may be shown; raises StudyError where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _no_url(url) from None
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"(\[[\da-fA-F:]+\]|[\w.-]+)(:\d+)?", host):
        raise _no_url(url)
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _no_url(text: str) -> StudyError:
    """The error of a text, which shows neither a user and password nor a query in it."""
    plain = re.split("[?#]", text, maxsplit=1)[0]
    shown = "" if "@" in text[len(plain) :] else plain.rpartition("@")[2]
    return StudyError(
        f"{shown or 'what was given'}: not the URL of a chat API; give one such as http://localhost:8000/v1"
    )


def _hash(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _write(place: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    beside.replace(place)
