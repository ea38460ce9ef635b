"""Interrupted commands: one line that says what is kept, exit status 128 + signal, and nothing lost or swallowed."""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

import jaxtrace as jt
from jaxtrace import interrupts
from jaxtrace.cli import signals
from jaxtrace.cli.options import Arguments, command
from jaxtrace.engine.metric_buffer import MetricBuffer
from jaxtrace.errors import StoreError
from tests.cli.test_trace import OUTPUT, assert_same_trace


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.fixture
def handlers():
    """The handlers before the command, which must be there after it."""
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    yield
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    assert signals.Signals.active is None and interrupts.requested() is None


@pytest.fixture
def verb(jaxtrace, monkeypatch, handlers):
    """Run a function as the verb `models`: verb(function) → status, out, err."""

    def run(function):
        @command("models", example="")
        def models(arguments: Arguments) -> None:
            """Do something long."""
            function()

        monkeypatch.setattr("jaxtrace.cli.show.models", models)
        return jaxtrace("models")

    return run


@pytest.fixture
def quick(monkeypatch):
    """The watching thread acts within milliseconds."""
    monkeypatch.setattr(signals, "RAISE_SECONDS", 0.02)
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.01)


@pytest.mark.parametrize("number", signals.SIGNALS, ids=lambda number: number.name)
def test_a_signal_in_a_run_keeps_finished_prompts(jaxtrace, no_plots, handlers, monkeypatch, tmp_path, number):
    run = ("trace", "--limit", 6, "--batch-size", 2, *OUTPUT)
    assert jaxtrace(*run, "--out", tmp_path / "whole").status == 0
    report, out = MetricBuffer._report, tmp_path / "cut"

    def report_and_send(*arguments):
        report(*arguments)
        send(number)

    with monkeypatch.context() as patch:
        patch.setattr(MetricBuffer, "_report", report_and_send)
        cut = jaxtrace(*run, "--out", out)
    stored = len(jt.open(out).rows)
    kept = f"{stored} of 6 prompts are kept in {out}; continue with --resume --out {out}"
    assert (cut.status, cut.err.splitlines()[-1]) == (128 + number, f"jaxtrace: interrupted; {kept}")
    assert 0 < stored < 6
    assert jaxtrace(*run, "--out", out, "--resume").status == 0
    assert_same_trace(jt.open(out), jt.open(tmp_path / "whole"))


def test_an_interrupted_judge_keeps_its_replies(jaxtrace, no_plots, handlers, monkeypatch, tmp_path):
    def judge_answers(rows, labels, chat, on_answer):
        send()
        on_answer(1)
        raise AssertionError("not checked")

    monkeypatch.setattr("jaxtrace.grading.judge.judge_answers", judge_answers)
    assert jaxtrace("trace", "--text", "Hi", *OUTPUT, "--out", tmp_path / "run").status == 0
    judge = ("--judge-url", "http://localhost:1/v1", "--judge-model", "tiny")
    done = jaxtrace("grade", tmp_path / "run", *judge, "--out", tmp_path / "labels.jsonl")
    kept = f"replies are kept in {tmp_path / 'labels.jsonl.cache'}; run the same command again to resume"
    assert (done.status, done.err.splitlines()[-1]) == (130, f"jaxtrace: interrupted; {kept}")


def test_a_swallowed_interrupt_is_raised_again(verb, quick):
    """Python prints and drops what a hook of the collector raises."""
    steps = []

    def hook(*_):
        if steps == ["collect"]:
            steps.append("send")
            send()
            time.sleep(30)  # the first KeyboardInterrupt comes here
            steps.append("not raised")

    def work():
        gc.callbacks.append(hook)
        try:
            steps.append("collect")
            gc.collect()
            steps.append("swallowed")
            time.sleep(30)  # and the second one here
        finally:
            gc.callbacks.remove(hook)

    done = verb(work)
    assert (done.status, done.err) == (130, "jaxtrace: interrupted\n")
    assert steps == ["collect", "send", "swallowed"]


def test_an_interrupt_that_became_another_error_is_an_interrupt(verb):
    def work(error):
        send(signal.SIGTERM)
        raise error

    done = verb(lambda: work(RuntimeError("CpuCallback error: KeyboardInterrupt")))
    assert (done.status, done.err) == (143, "jaxtrace: interrupted\n")
    done = verb(lambda: work(StoreError("run: No space left on device; make room")))
    assert (done.status, done.err) == (143, "jaxtrace: interrupted; run: No space left on device; make room\n")


def test_a_signal_after_the_work_says_that_it_is_complete(verb):
    done = verb(send)
    assert (done.status, done.err) == (130, "jaxtrace: interrupted as it ended; everything is written\n")


def test_ignored_signals_stay_ignored(verb):
    """A shell's background jobs ignore Ctrl-C, and `nohup` ignores SIGHUP."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert verb(send).status == 0
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_nothing_is_raised_while_finished_work_is_unsaved(verb, quick):
    saved = []

    def work():
        with interrupts.checked(lambda: not saved):
            send()
            time.sleep(0.2)
            saved.append(True)
            time.sleep(30)

    assert verb(work).status == 130
    assert saved == [True]


@pytest.mark.parametrize(("presses", "unsaved"), [(1, False), (2, True)], ids=["stuck", "twice"])
def test_a_process_stuck_in_c_ends(presses, unsaved):
    """Only signal handlers of Python wait for the main thread; the watching thread does not."""
    script = f"""
import hashlib, time
from jaxtrace import interrupts
from jaxtrace.cli import signals
signals.RAISE_SECONDS, signals.END_SECONDS = 0.05, 0.3
with signals.Signals():
    signals.on_interrupt(lambda: "2 of 3 are kept")
    with interrupts.checked(lambda: {unsaved}):
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes of C without a look at signals
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5 if unsaved else 0)
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    *before, last = err.splitlines()
    if unsaved:
        assert before == [f"jaxtrace: interrupted; {signals.WAITING}"]
        assert last == "jaxtrace: interrupted twice and ended at once; 2 of 3 are kept"
    else:
        assert (before, last) == ([], "jaxtrace: interrupted; 2 of 3 are kept")
