"""Commands that are killed at random moments, or started twice at once, leave what an undisturbed one does."""

import multiprocessing
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

import jaxtrace as jt
from jaxtrace.files import LOCK
from jaxtrace.lab.settings import LAB_WORLD, PeopleClass
from tests.sweeping.datasets import assert_same_dataset

KILLS = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 6  # of each nightly test
SWEEP = {
    "models": "demo",
    "samplers": {"temperature": 0.8},
    "seeds": [0, 1],
    "probes": "output",
    "settings": {"limit": 8, "max_new_tokens": 4, "batch_size": 2},
}


@pytest.fixture(scope="module")
def run():
    """Return a function that starts a command in a forked process: run(word, …)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sweeping.process"])

    def start(*words):
        from tests.sweeping.process import command

        process = context.Process(target=command, args=[*map(str, words)])
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def started(run):
    """Return a function that starts a sweep: started(file, root)."""
    return lambda file, root: run("sweep", file, "--out", root)


def parts(root: Path) -> int:
    return sum(name.startswith("part-") for _, _, names in os.walk(root) for name in names)


def kill_until_complete(start, root: Path, chance: random.Random, most: int) -> int:
    """Start a sweep again after each kill, let it end after `most` kills, and return the number of kills."""
    for kills in range(most + 1):
        process, files = start(root), parts(root) + chance.randrange(8)
        if kills < most:
            while process.is_alive() and parts(root) < files:
                time.sleep(0.002)
            process.join(chance.uniform(0, chance.choice((0.02, 1))))
            process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            return kills
    raise AssertionError("unreachable")


@pytest.mark.slow
@pytest.mark.parametrize("least", [1, pytest.param(KILLS, marks=pytest.mark.nightly)])
def test_killed_sweep_has_the_dataset_of_an_undisturbed_one(started, tmp_path, least):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    undisturbed = started(file, tmp_path / "want")
    undisturbed.join()
    assert undisturbed.exitcode == 0
    seed = time.time_ns()
    print(f"seed {seed}")
    chance, kills, rounds = random.Random(seed), 0, 0
    while kills < least:
        got = tmp_path / f"got-{rounds}"
        kills += kill_until_complete(partial(started, file), got, chance, least - kills)
        rounds += 1
        assert_same_dataset(jt.open(got), jt.open(tmp_path / "want"))
        assert not [name for _, _, names in os.walk(got) for name in names if name.endswith(".tmp")]


@pytest.mark.nightly
def test_two_sweeps_at_once_leave_the_dataset_of_one(run, tmp_path):
    """The second sweep starts at any moment of the first one; it is refused, or starts after the first one's end."""
    file, chance, statuses = tmp_path / "sweep.yaml", random.Random(14), []
    file.write_text(yaml.safe_dump(SWEEP))
    for number in range(KILLS + 1):
        root = tmp_path / f"got-{number}"
        first = run("sweep", file, "--out", root)
        if number:  # the first one is not disturbed
            time.sleep(chance.uniform(0, 3))
            second = run("sweep", file, "--out", root)
            second.join()
            statuses.append(second.exitcode)
        first.join()
        statuses.append(first.exitcode)
        assert_same_dataset(jt.open(root), jt.open(tmp_path / "got-0"))
        assert not (root / LOCK).exists()
    assert {*statuses} == {0, 2} and statuses.count(0) > KILLS


@pytest.mark.nightly
def test_trace_resumed_twice_at_once_is_complete(run, tmp_path):
    words = ("trace", "demo", "--limit", 12, "--max-new-tokens", 4, "--batch-size", 2, "--probes", "output")
    statuses = []
    for number in range(KILLS):
        out = tmp_path / f"got-{number}"
        killed = run(*words, "--out", out)
        while killed.is_alive() and parts(out) < 3:
            time.sleep(0.002)
        killed.kill()
        killed.join()
        both = [run(*words, "--out", out, "--resume") for _ in range(2)]
        for process in both:
            process.join()
        statuses += [process.exitcode for process in both]
        trace = jt.open(out)
        assert trace.info["complete"] and len({row.prompt.id for row in trace.rows}) == len(trace.rows) == 12
        assert sum(trace.lengths) == trace.tokens.count_rows()
    assert {*statuses} == {0, 2}


@pytest.mark.nightly
@pytest.mark.parametrize("verb", ["lab train", "tuned-lens"])
def test_killed_training_gives_the_files_of_an_undisturbed_one(run, tmp_path, verb):
    classes = (PeopleClass(name="some", people=2, stated=(0, 4)),)
    world = LAB_WORLD.model_copy(update={"classes": classes, "strangers": 20, "sums": 40, "stories": 20})
    (tmp_path / "world.json").write_text(world.model_dump_json())
    options = {
        "lab train": ("--layers", 1, "--width", 32, "--steps", 9, "--world", tmp_path / "world.json"),
        "tuned-lens": ("demo", "--task", "lab", "--steps", 9, "--length", 32),
    }[verb]

    def train(place):
        return run(*verb.split(), *options, "--out", place / "model")

    def files(place):
        return {path.name: path.read_bytes() for path in (place / "model").iterdir()}

    train(tmp_path / "want").join()
    chance, kills, rounds = random.Random(14), 0, 0
    while kills < KILLS:
        place = tmp_path / f"got-{rounds}"
        rounds += 1
        while True:
            process = train(place)
            process.join(chance.uniform(0, 15) if kills < KILLS else None)
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                break
            kills += 1
        assert process.exitcode in (0, 2)  # 2 if the last kill came after the last file
        assert {name: content for name, content in files(place).items() if name != LOCK} == files(tmp_path / "want")
