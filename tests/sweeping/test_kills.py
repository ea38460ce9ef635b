"""A sweep that is killed at random moments and started again has the dataset of an undisturbed one."""

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

KILLS = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 6  # of the nightly test
SWEEP = {
    "models": "demo",
    "samplers": {"temperature": 0.8},
    "seeds": [0, 1],
    "probes": "output",
    "settings": {"limit": 8, "max_new_tokens": 4, "batch_size": 2},
}


@pytest.fixture(scope="module")
def started():
    """Return a function that starts a sweep in a forked process: started(file, root)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sweeping.process"])

    def start(file, root):
        from tests.sweeping.process import sweep

        process = context.Process(target=sweep, args=(str(file), str(root)))
        process.start()
        return process

    return start


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
