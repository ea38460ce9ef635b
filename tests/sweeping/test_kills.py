"""A sweep that is killed at random moments, again and again, ends where an undisturbed one does."""

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
from tests.sweeping.datasets import assert_same_dataset

KILLS = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 6
SWEEP = {
    "models": "demo",
    "samplers": {"temperature": 0.8},
    "seeds": [0, 1, 2],
    "probes": "output",
    "settings": {"limit": 12, "max_new_tokens": 4, "batch_size": 2},
}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Starts a sweep in a process of its own that has all of jaxtrace imported: started(file, root)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sweeping.process"])
    cache = tmp_path_factory.mktemp("programs")

    def start(file, root):
        from tests.sweeping.process import sweep

        process = context.Process(target=sweep, args=(str(file), str(root), str(cache)))
        process.start()
        return process

    return start


def parts(root: Path) -> int:
    return sum(name.startswith("part-") for _, _, names in os.walk(root) for name in names)


def killed_till_it_ends(start, root: Path, chance: random.Random, most: int) -> int:
    """Starts a sweep again each time it is killed; after so many kills it is left to its end. How often it was."""
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
def test_killed_at_random_moments(started, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    undisturbed = started(file, tmp_path / "want")
    undisturbed.join()
    assert undisturbed.exitcode == 0
    seed = time.time_ns()
    print(f"seed {seed}")
    chance, kills, rounds = random.Random(seed), 0, 0
    while kills < KILLS:
        got = tmp_path / f"got-{rounds}"
        kills += killed_till_it_ends(partial(started, file), got, chance, KILLS - kills)
        rounds += 1
        assert_same_dataset(jt.open(got), jt.open(tmp_path / "want"))
        assert not [name for _, _, names in os.walk(got) for name in names if name.endswith(".tmp")]
