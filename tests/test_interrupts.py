"""Ctrl-C in the library: it takes effect between chunks, loses no finished row, and is never swallowed."""

import gc
import os
import signal
import threading
from functools import partial

import pytest

import jaxtrace as jt
from jaxtrace import interrupts
from jaxtrace.run import prepare
from jaxtrace.settings.run import RunConfig
from tests.training.test_loop import fit_line

TEXTS = ("Where does Mia live? " * 12, "Hello", "Good day", "Hm")

press_ctrl_c = partial(os.kill, os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def handler_is_restored():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert interrupts.requested() is None


@pytest.fixture
def config(tmp_path):
    return RunConfig(text=TEXTS, batch_size=2, score=True, probes=("output",), out=tmp_path / "run")


def press_once(chunk):
    """Return a callback of a run's progress that presses Ctrl-C in one of its chunks."""
    chunks = iter(range(1000))
    return lambda *_: press_ctrl_c() if next(chunks) == chunk else None


def test_rows_that_finished_out_of_order_are_kept(config):
    """The first text is long: when the run ends, the others wait for it in memory."""
    run = prepare(config)
    with pytest.raises(KeyboardInterrupt):
        run.write(press_once(0))
    stored = [row.prompt.text for row in jt.open(config.out).rows]
    assert stored and TEXTS[0] not in stored and run.stored == len(stored)
    resumed = prepare(config, resume=True)
    assert resumed.done == len(stored)
    assert [row.prompt.text for row in resumed.trace().rows] == list(TEXTS)


def test_a_swallowed_ctrl_c_still_ends_the_run(config):
    """Python drops what the collector's hooks raise, and JAX installs one."""

    def hook(*_):
        if len(pressed) == 1:
            pressed.append(press_ctrl_c())

    def on_progress(*_):
        pressed.append(None)
        gc.collect()

    pressed = []
    gc.callbacks.append(hook)
    try:
        with pytest.raises(KeyboardInterrupt):
            prepare(config).write(on_progress)
    finally:
        gc.callbacks.remove(hook)
    assert len(pressed) == 2


def test_traces_in_memory_end_at_ctrl_c(config):
    model, chunks = jt.load("demo"), []

    def on_progress(*_):
        chunks.append(press_ctrl_c())

    with pytest.raises(KeyboardInterrupt):
        model.score(TEXTS, probes=config.recorded, batch_size=2, on_progress=on_progress)
    assert len(chunks) == 1


def test_a_training_saves_its_step_at_ctrl_c(tmp_path):
    losses, resumed = {}, {}

    def on_step(step, loss):
        losses[step] = loss
        if step == 2:
            press_ctrl_c()  # step 3 saves, though only every second step does otherwise

    with pytest.raises(KeyboardInterrupt):
        fit_line(tmp_path / "state", on_step=on_step)
    fit_line(tmp_path / "state", on_step=resumed.__setitem__)
    assert list(losses) in ([1, 2], [1, 2, 3]) and min(resumed) == max(losses) + 1


def test_the_first_ctrl_c_waits_for_a_check_and_the_second_does_not():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.checked():
        press_ctrl_c()
        done.append("first")
        press_ctrl_c()
        done.append("second")
    assert done == ["first"]
    with pytest.raises(KeyboardInterrupt), interrupts.checked():
        press_ctrl_c()
        done.append("end")
    assert done == ["first", "end"]


def test_handlers_of_a_program_stay_and_threads_install_none():
    def of_the_program(*_):
        raise AssertionError("not pressed")

    signal.signal(signal.SIGINT, of_the_program)
    try:
        with interrupts.checked():
            assert signal.getsignal(signal.SIGINT) is of_the_program
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = []

    def in_thread():
        with interrupts.checked():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
