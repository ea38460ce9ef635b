"""Commands that write results, and how two results of one command are compared."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import yaml

import jaxtrace as jt
from jaxtrace.lab.settings import LAB_WORLD, PeopleClass
from tests.checkpoints.conftest import CONFIG, Folder
from tests.grading.server import serving
from tests.reliability.process import start
from tests.sweeping.datasets import assert_same_dataset

VERBS = ("trace", "sweep", "convert", "lab train", "tuned-lens", "grade")
SWEEP = {"models": "demo", "samplers": {"temperature": 0.8}, "seeds": [0, 1], "probes": "output"}
SWEEP |= {"settings": {"limit": 8, "max_new_tokens": 4, "batch_size": 2}}


@dataclass(frozen=True)
class Command:
    """A command of jaxtrace that can be run again after it was interrupted.

    Attributes:
      folder: directory of its inputs, in which it runs.
      words: its words; OUT stands for the place of the result.
      same: function that asserts that two results are equal.
    """

    folder: Path
    words: tuple[str, ...]
    same: Callable[[Path, Path], None]

    def start(self, out):
        """Start the command in a process of its own."""
        return start(*(str(out) if word == "OUT" else word for word in self.words), folder=self.folder)

    def undisturbed(self, out):
        """Run the command to its end twice, and return the seconds of the second run, which has compiled programs."""
        for _ in range(2):
            remove(out)
            began = time.monotonic()
            process = self.start(out)
            process.join()
            assert process.exitcode == 0
        return time.monotonic() - began


@contextmanager
def command_of(verb, folder):
    """Write the inputs of a verb into a folder; a judge answers while the block runs."""
    few = ("--max-new-tokens", "4", "--batch-size", "2", "--probes", "output")
    if verb == "trace":
        yield Command(folder, ("trace", "demo", "--limit", "24", *few, "--resume", "--out", "OUT"), same_traces)
    elif verb == "sweep":
        (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
        yield Command(folder, ("sweep", "sweep.yaml", "--out", "OUT"), same_traces)
    elif verb == "convert":
        Folder(folder / "tiny", CONFIG | {"num_hidden_layers": 8}).write()
        yield Command(folder, ("convert", "tiny", "OUT"), same_weights)
    elif verb == "lab train":
        classes = tuple(PeopleClass(name=str(count), people=2, stated=(count,)) for count in (0, 2, 16))
        small = LAB_WORLD.model_copy(update={"classes": classes, "strangers": 20, "sums": 40, "stories": 20})
        (folder / "small.json").write_text(small.model_dump_json())
        shape = ("--family", "llama", "--layers", "1", "--width", "32", "--steps", "8", "--world", "small.json")
        yield Command(folder, ("lab", "train", *shape, "--out", "OUT"), same_files("model.safetensors"))
    elif verb == "tuned-lens":
        sizes = ("--steps", "8", "--batch", "2", "--length", "32", "--task", "lab")
        same = same_files("lens.safetensors", "lens.json")
        yield Command(folder, ("tuned-lens", "demo", *sizes, "--out", "OUT"), same)
    else:
        lines = [
            {"prompt": f"What is {i} + 5?", "correct_answers": ["x"], "incorrect_answers": ["y"]} for i in range(40)
        ]
        (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
        traced = start("trace", "demo", "--prompts", "questions.jsonl", *few, "--out", "answers", folder=folder)
        traced.join()
        assert traced.exitcode == 0
        with serving(_slow_reply) as api:
            judge = ("--judge-url", api.url, "--judge-model", "judge")
            yield Command(folder, ("grade", "answers", *judge, "--out", "OUT"), same_files(""))
            assert api.requests


def same_traces(got, want):
    """Assert equal stored traces."""
    assert_same_dataset(jt.open(got), jt.open(want))


def same_weights(got, want):
    """Assert equal weights of two converted checkpoints."""
    one, other = (jt.load(str(place)) for place in (got, want))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert one.fingerprint() == other.fingerprint()


def same_files(*names):
    """Return a function that asserts that files of two directories are equal; "" for two files."""

    def same(got, want):
        for name in names:
            one, other = (place / name if name else place for place in (got, want))
            assert one.read_bytes() == other.read_bytes(), name

    return same


def remove(place):
    """Remove a result and what a judge has said."""
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    shutil.rmtree(f"{place}.cache", ignore_errors=True)


def temporary_files(place):
    """Return the names of temporary files that a result holds or has beside it."""
    return [path.name for path in (*place.parent.glob(".*.tmp"), *place.rglob(".*.tmp"))]


def _slow_reply(_):
    time.sleep(0.05)
    return json.dumps({"grade": "correct", "reason": "x"})
