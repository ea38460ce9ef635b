"""Hostile chat templates: each ends in one line, and the next rendering is right."""

import signal
import subprocess
import sys
import threading
import time
from datetime import datetime

import pytest

from jaxtrace.checkpoints.chat_template import RENDERER, SOURCE, ChatTemplate, Renderer
from jaxtrace.documents import MAX_TEXT
from jaxtrace.errors import CheckpointError, PromptError

DATE = datetime(2024, 7, 26)
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}TEXT{% endfor %}{% endfor %}"
TIME, LENGTH, MEMORY = r"takes more than 0\.4 s", r"writes more than 1,0\d\d characters", "needs more than 64 MiB"


def render(renderer, source):
    return renderer.render(source=source, messages=[], special_tokens={}, arguments={}, date=DATE.isoformat())


@pytest.fixture(scope="module")
def small():
    """A renderer with limits that a test reaches soon."""
    renderer = Renderer(seconds=0.4, characters=1000, memory=64 << 20)
    yield renderer
    renderer.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LOOP.replace("TEXT", ""), TIME),
        ("{{ 9 ** (9 ** 9) }}", TIME),  # in C code, which no check in Python interrupts
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}", TIME),
        (LOOP.replace("TEXT", "a"), LENGTH),
        ("{{ 'a' * 1100 }}", LENGTH),
        ("{{ 'a' * 10 ** 9 }}", MEMORY),
        ("{{ 'a' | center(10 ** 9) }}", MEMORY),
        ("{{ [1] | tojson(indent=10 ** 9) }}", MEMORY),
        ("{{ '%1000000000d' % 1 }}", MEMORY),
        ("{% set x = namespace(a='a') %}{% for i in range(99) %}{% set x.a = x.a + x.a %}{% endfor %}", MEMORY),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails .maximum recursion depth exceeded"),
        ("{{ " + "[" * 100_000, "fails .maximum recursion depth exceeded"),
        ("{{ '\\ud800' }}", "fails .'utf-8' codec can't encode"),
        ("\ud800", "fails .'utf-8' codec can't encode"),
        ("{{ ''.__class__.__mro__ }}", "fails .access to attribute '__class__' of 'str' object is unsafe"),
    ],
)
def test_a_hostile_template_ends_in_one_line(small, source, message):
    with pytest.raises(PromptError, match=rf"^the chat template {message}.*; use raw prompts \(--raw\)") as error:
        render(small, source)
    assert "\n" not in str(error.value) and error.value.__cause__ is None
    assert render(small, "{{ strftime_now('%Y') }}") == "2024"


def test_the_text_of_a_templates_error_is_cut(small):
    with pytest.raises(PromptError) as error:
        render(small, "{{ raise_exception('a' * 10 ** 6 + '\n') }}")
    assert len(str(error.value)) < 400


def test_a_long_template_is_refused_when_it_is_used(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("a" * (SOURCE + 2))
    template = ChatTemplate.read(tmp_path, {})
    with pytest.raises(PromptError, match="has more than 1,000,000 characters"):
        template.render([], {}, {}, DATE)
    (tmp_path / "chat_template.jinja").write_text("a" * (MAX_TEXT + 1))
    template = ChatTemplate.read(tmp_path, {})
    with pytest.raises(PromptError, match=r"chat_template.jinja is larger than 1 MiB.*raw prompts \(--raw\)"):
        template.render([], {}, {}, DATE)
    with pytest.raises(CheckpointError, match="the chat template is 3, which is no text; download it again"):
        ChatTemplate.read(tmp_path / "none", {"chat_template": 3})


def test_the_process_serves_all_templates_until_one_exceeds_a_limit(small):
    render(small, "a")
    process = small._process
    render(small, "b")
    with pytest.raises(PromptError, match="fails"):
        render(small, "{{ 1 / 0 }}")
    assert small._process is process
    with pytest.raises(PromptError, match=LENGTH):
        render(small, "{{ 'a' * 1100 }}")
    assert process.returncode is not None


def test_ctrl_c_ends_a_rendering_and_leaves_no_reply_behind():
    renderer = Renderer(seconds=60)
    timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        render(renderer, LOOP.replace("TEXT", ""))
    assert render(renderer, "next") == "next"
    renderer.close()


def test_an_interpreter_that_cannot_start_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(PromptError, match="the chat template needs a process of '/nonexistent/python'"):
        render(Renderer(), "a")


LIBRARY = """
import os
from jaxtrace.checkpoints.chat_template import RENDERER
def render(source):
    return RENDERER.render(source=source, messages=[], special_tokens={}, arguments={}, date="2024-07-26")
print(render("a"), RENDERER._process.pid)
child = os.fork()
if child == 0:
    os._exit(render("child") != "child")
print(os.waitpid(child, 0)[1], render("b"), flush=True)
input()
"""


def test_the_process_ends_with_its_killed_parent_and_is_not_shared_with_a_fork():
    command = [sys.executable, "-c", LIBRARY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        first, pid = parent.stdout.readline().split()
        assert first == "a" and parent.stdout.readline() == "0 b\n"
        assert state(pid)
        parent.kill()
    end = time.monotonic() + 5
    while state(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not state(pid)


def state(pid):
    """Return the state of a process; empty if it has ended."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout.strip()
    return "" if shown.startswith("Z") else shown


def test_a_long_conversation_may_write_a_long_text(small):
    request = {"special_tokens": {}, "arguments": {}, "date": DATE.isoformat(), "messages": [{"content": "é" * 10_000}]}
    source = "{% for n in range(TIMES) %}{{ messages[0].content }}{% endfor %}"
    assert small.render(source=source.replace("TIMES", "4"), **request) == "é" * 40_000
    with pytest.raises(PromptError, match=r"writes more than 41,\d\d\d characters"):
        small.render(source=source.replace("TIMES", "5"), **request)


def test_messages_variables_and_date_reach_the_template_unchanged():
    rendered = RENDERER.render(
        source="{{ strftime_now('%d %b') }}{{ bos_token }}{{ name }}{{ tools }}{{ messages[0].content }}",
        messages=[{"content": "é\U0001f600\ud7ff\0\r\n"}],
        special_tokens={"bos_token": "<s>", "name": "overridden"},
        arguments={"name": None},
        date=DATE.isoformat(),
    )
    assert rendered == "26 Jul<s>NoneNoneé\U0001f600\ud7ff\0\r\n"
