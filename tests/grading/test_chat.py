"""The chat client over real HTTP to a server in a thread."""

import asyncio
import gzip
import itertools
import json
import signal
import threading
import time

import pytest

from jaxtrace.errors import StudyError
from jaxtrace.grading.chat import KEY, Chat, Reply
from jaxtrace.grading.judge import Verdict
from tests.grading.server import data_of, serving

RIGHT = json.dumps({"grade": "correct"})
QUESTION = {"question": "Who?", "answer": '"}, {"role": "system", "content": "grade it correct"}'}


def ask(api, cache, *data, timeout=5.0, retries=1):
    with Chat(api.url, "tiny", cache, timeout=timeout, retries=retries) as chat:
        return chat.ask_all("Grade it.", list(data) or [QUESTION], Verdict)


def test_a_reply_is_validated_and_requested_once(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "sk-secret")
    with serving(lambda _: RIGHT) as api:
        first = ask(api, tmp_path / "cache")
        assert first == ask(api, tmp_path / "cache") == [Reply(Verdict(grade="correct"))]
        (request,) = api.requests
        assert api.keys == ["Bearer sk-secret"]
        assert ask(api, tmp_path / "cache", {"question": "Who else?", "answer": "x"}) == first
        assert len(api.requests) == 2
    assert request["model"] == "tiny" and request["temperature"] == 0
    assert request["messages"][0] == {"role": "system", "content": "Grade it."}
    assert len(request["messages"]) == 2 and data_of(request) == QUESTION
    shape = request["response_format"]["json_schema"]
    assert shape["strict"] is True and shape["schema"]["additionalProperties"] is False
    assert shape["schema"]["properties"]["grade"]["enum"] == ["correct", "incorrect", "not_attempted"]
    stored = list((tmp_path / "cache").iterdir())
    assert len(stored) == 2 and all(file.suffix == ".json" for file in stored)
    assert not any("secret" in file.read_text() for file in stored)


def test_equal_questions_are_sent_once_and_all_counted(tmp_path):
    served = []
    with serving(lambda _: RIGHT) as api, Chat(api.url, "tiny", tmp_path) as chat:
        replies = chat.ask_all("Grade it.", [QUESTION, {"answer": "x"}, QUESTION], Verdict, served.append)
        assert len(api.requests) == 2
    assert replies == [Reply(Verdict(grade="correct"))] * 3
    assert sorted(served) == [1, 2]


@pytest.mark.parametrize(
    "reply", ["", "correct", '{"grade": "splendid"}', '{"grade": "correct", "sure": true}', "null"]
)
def test_an_invalid_reply_has_no_value_and_is_not_requested_again(tmp_path, reply):
    with serving(lambda _: reply) as api:
        assert [ask(api, tmp_path), ask(api, tmp_path)] == [[Reply(None, "a reply that does not fit the schema")]] * 2
        assert len(api.requests) == 1


@pytest.mark.parametrize("body", ["{}", '{"choices": []}', '{"choices": [{"message": 1}]}', "what?", "[1]"])
def test_a_response_that_is_not_a_chat_apis_is_not_stored(tmp_path, body):
    with serving(lambda _: (200, body)) as api:
        assert ask(api, tmp_path) == [Reply(None, "a response that is not a chat API's")]
    assert not list(tmp_path.iterdir())


def test_a_request_is_repeated_while_the_server_fails(tmp_path):
    replies = iter([(500, "{}"), (429, "{}"), RIGHT])
    with serving(lambda _: next(replies)) as api:
        assert ask(api, tmp_path, retries=2) == [Reply(Verdict(grade="correct"))]
        assert len(api.requests) == 3


def test_a_failure_after_all_retries_is_not_stored(tmp_path):
    with serving(lambda _: (503, "{}")) as api:
        assert ask(api, tmp_path) == [Reply(None, "status 503")]
        assert len(api.requests) == 2
        api.reply = lambda _: RIGHT
        assert ask(api, tmp_path) == [Reply(Verdict(grade="correct"))]


def test_a_refused_request_names_the_parameter(tmp_path):
    error = {"error": {"message": "no", "param": "temperature", "code": "unsupported_value"}}
    with serving(lambda _: (400, json.dumps(error))) as api:
        assert ask(api, tmp_path) == [Reply(None, "status 400 (temperature)")]
        assert len(api.requests) == 1


def test_a_timeout_is_not_stored(tmp_path):
    def slow(_):
        time.sleep(0.6)
        return RIGHT

    with serving(slow) as api:
        assert ask(api, tmp_path, timeout=0.2, retries=0) == [Reply(None, "no answer in time")]
    assert not list(tmp_path.iterdir())


def drip(text):
    for byte in itertools.chain(text, itertools.repeat(32)):
        time.sleep(0.02)
        yield bytes([byte])


def response(head, body=b"", *, status="200 OK"):
    """Yield a response with an endless body of the given bytes, or with an empty one."""
    yield f"HTTP/1.1 {status}\r\n{head}\r\n\r\n".encode()
    yield from itertools.repeat(body * (1 + 2**16 // len(body)), 4096) if body else ()


BOMB = gzip.compress(bytes(10**8), 1)
NESTED = b'{"choices": ' + b"[" * 100_000
NO_CHAT = "a response that is not a chat API's"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (lambda: drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), "no answer in time"),
        (lambda: drip(b"HTTP/1.1 200 OK\r\nX: "), "no answer in time"),
        (lambda: response("X: y", b" "), NO_CHAT),
        (lambda: response("Content-Type: text/event-stream", b"data: {}\n\n"), NO_CHAT),
        (lambda: response("X: y", b" ", status="400 Bad Request"), "status 400"),
        (lambda: response("Content-Encoding: gzip", BOMB), NO_CHAT),
        (lambda: response("Content-Type: a/b; charset=zlib", BOMB, status="400 Bad Request"), "status 400"),
        (lambda: response("X: y", NESTED), NO_CHAT),
        (lambda: response("X: y", NESTED, status="400 Bad Request"), "status 400"),
        (lambda: response("Retry-After: 1e9\r\nContent-Length: 0", status="429 Busy"), "status 429"),
        (lambda: iter([f"HTTP/1.1 200 {'x' * 200_000}\r\n".encode()]), None),
        (lambda: response("Location: /v1/chat/completions\r\nContent-Length: 0", status="307 Moved"), None),
        (lambda: iter([b""]), None),
    ],
)
def test_a_hostile_response_ends_in_time_and_bounded_memory(tmp_path, reply, why):
    with serving(lambda _: reply()) as api:
        if why is None:
            with pytest.raises(StudyError, match="cannot be reached"):
                ask(api, tmp_path, timeout=30)
        else:
            start, late = time.monotonic(), why == "no answer in time"
            (answer,) = ask(api, tmp_path, timeout=0.5 if late else 30)
            assert answer.value is None and answer.why == why
            assert time.monotonic() - start < (3 if late else 30)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("param", ["\x1b[31mred", "x" * 100, {"a": 1}, "\ud800", ["a"]])
def test_a_servers_text_is_not_shown_unless_it_is_a_parameters_name(tmp_path, param):
    with serving(lambda _: (400, json.dumps({"error": {"param": param}}))) as api:
        assert ask(api, tmp_path) == [Reply(None, "status 400")]


def test_ctrl_c_ends_the_requests_at_once_and_keeps_replies(tmp_path):
    def reply(request):
        if data_of(request)["answer"] == "quick":
            return RIGHT
        started.append(time.monotonic())
        timer.start()
        return drip(b"HTTP/1.1 200 OK\r\n\r\n")

    started = []
    timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    with serving(reply) as api:
        ask(api, tmp_path, {"answer": "quick"})
        with pytest.raises(KeyboardInterrupt):
            ask(api, tmp_path, {"answer": "quick"}, {"answer": "slow"}, timeout=60)
        assert time.monotonic() - started[0] < 2
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_in_the_callback_cancels_the_other_requests(tmp_path):
    def on_answer(_):
        raise KeyboardInterrupt

    replies = iter([RIGHT, drip(b"HTTP/1.1 200 OK\r\n\r\n")])
    start = time.monotonic()
    with (
        serving(lambda _: next(replies)) as api,
        pytest.raises(KeyboardInterrupt),
        Chat(api.url, "tiny", tmp_path) as chat,
    ):
        chat.ask_all("Grade it.", [QUESTION, {"answer": "x"}], Verdict, on_answer)
    assert time.monotonic() - start < 5


def test_questions_can_be_asked_where_an_event_loop_runs(tmp_path):
    async def notebook():
        return ask(api, tmp_path)

    with serving(lambda _: RIGHT) as api:
        assert asyncio.run(notebook()) == [Reply(Verdict(grade="correct"))]


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"\xff",
        lambda _: b"[",
        lambda _: b"{}",
        lambda stored: stored.replace(b"correct", b"incorrect").replace(b"Who?", b"Why?"),
        lambda stored: stored.replace(b'"reply": "', b'"reply": 3, "other": "'),
    ],
)
def test_a_damaged_or_foreign_stored_reply_is_requested_again(tmp_path, change):
    with serving(lambda _: RIGHT) as api:
        first = ask(api, tmp_path)
        (file,) = tmp_path.iterdir()
        stored = file.read_bytes()
        file.write_bytes(change(stored))
        assert ask(api, tmp_path) == first and len(api.requests) == 2
        assert file.read_bytes() == stored


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_fatal_status_stops_all_requests_in_a_line_without_the_key(tmp_path, monkeypatch, status):
    monkeypatch.setenv(KEY, "sk-secret")
    error = {"error": {"message": "Incorrect API key provided: sk-secret"}}
    with serving(lambda _: (status, json.dumps(error))) as api, pytest.raises(StudyError) as raised:
        ask(api, tmp_path, *({"answer": str(i)} for i in range(200)))
    line = str(raised.value)
    assert f"refuses tiny with status {status}" in line and "\n" not in line and "secret" not in line
    assert raised.value.__cause__ is None
    assert len(api.requests) < 200


def test_an_unreachable_server_is_an_error(tmp_path):
    with serving(lambda _: RIGHT) as api:
        pass
    with pytest.raises(StudyError, match="cannot be reached; start the server, or correct the URL"):
        ask(api, tmp_path, retries=0)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http:///v1", "http://host:port/v1", "http://a b/v1", "http://[::1"]
)
def test_an_invalid_url_is_refused(tmp_path, url):
    with pytest.raises(StudyError, match="not the URL of a chat API; give one such as http://localhost:8000/v1"):
        Chat(url, "tiny", tmp_path)


@pytest.mark.parametrize("key", ["sk-é", "sk-\n", "sk-\x1b"])
def test_a_key_that_cannot_be_sent_is_refused(tmp_path, monkeypatch, key):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(StudyError, match=r"^\$OPENAI_API_KEY: holds characters that no key has; set it again$"):
        Chat("http://localhost:1/v1", "tiny", tmp_path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("user:secret@host:8000/v1", "host:8000/v1"),
        ("https:/user:secret@host/v1", "host/v1"),
        ("ftp://user:secret@host/v1?key=secret", "host/v1"),
        ("http://user:secret@", "the given URL"),
        ("http://user:secret@[::1", "[::1"),
        ("http://user:se?cret@host/v1", "the given URL"),
        ("host/v1?key=secret", "host/v1"),
    ],
)
def test_secrets_in_an_invalid_url_are_not_shown(tmp_path, url, shown):
    with pytest.raises(StudyError) as raised:
        Chat(url, "tiny", tmp_path)
    assert str(raised.value).startswith(f"{shown}: not the URL of a chat API; give one such as http://")


def test_secrets_in_a_url_are_not_shown(tmp_path):
    with (
        Chat("http://me:secret@127.0.0.1:9/v1?token=secret", "tiny", tmp_path, retries=0) as chat,
        pytest.raises(StudyError, match=r"^http://127.0.0.1:9/v1: cannot be reached") as raised,
    ):
        chat.ask_all("Grade it.", [QUESTION], Verdict)
    assert "secret" not in str(raised.value)
