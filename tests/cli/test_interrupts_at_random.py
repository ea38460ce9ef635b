"""Real interrupts of every long verb at random moments: none is swallowed, and nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from jaxtrace.cli.signals import SIGNALS
from jaxtrace.lab.settings import LAB_WORLD, PeopleClass
from tests.checkpoints.conftest import CONFIG, Folder
from tests.grading.server import serving
from tests.reliability.commands import same_files, same_traces, same_weights

INTERRUPTS = 10  # of each verb, besides those that come as it ends
SECONDS = 60  # an interrupt that has not ended a command by then was swallowed

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux whether a process handles SIGTERM"),
]


@dataclass(frozen=True)
class Case:
    """A command to interrupt.

    Attributes:
      words: the command without its directory or file `out`.
      compare: asserts that the result of interrupted commands equals an uninterrupted one's.
      resume: words that a resumed command adds.
      advice: end of the line of an interrupted command.
    """

    words: tuple[object, ...]
    compare: Callable[[Path, Path], None]
    resume: tuple[str, ...] = ()
    advice: str = "run the same command again"
    out: tuple[str, ...] | None = ("--out",)  # before the name of the result; None for a verb that writes nothing


def start(case: Case, out: Path, *more: object) -> subprocess.Popen[str]:
    named = () if case.out is None else (*case.out, out)
    command = [sys.executable, "-m", "jaxtrace.cli", *case.words, *more, *named]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def run(case: Case, out: Path) -> None:
    """Run a command to its end."""
    process = start(case, out)
    _, err = process.communicate()
    assert process.returncode == 0, err


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    """Wait until Python has started and the command handles signals."""
    mask = 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if any(line.startswith("SigCgt:") and int(line.split()[1], 16) & mask for line in lines):
            return
        time.sleep(0.01)


def same_tables(got, want):
    names, others = (sorted(f"tables/{path.name}" for path in place.glob("tables/*.csv")) for place in (want, got))
    assert names and names == others
    same_files(*names)(got, want)


def nothing_to_compare(got, want):
    pass


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """A trace of questions with reference answers."""
    folder = tmp_path_factory.mktemp("answers")
    lines = [f"{{}},What is {i} + 2?,{i + 2}" for i in range(40)]
    (folder / "questions.csv").write_text("\n".join(["metadata,problem,answer", *lines]))
    words = ("trace", "demo", "--task", "simpleqa", "--data", folder / "questions.csv", "--max-new-tokens", 12)
    run(Case(words, nothing_to_compare), folder / "trace")
    return folder / "trace"


def trace_case(folder, _):
    words = ("--prompts", folder / "p.txt", "--batch-size", 4, "--max-new-tokens", 24, "--probes", "output,hidden")
    (folder / "p.txt").write_text("".join(f"Question: What is {i} + {i % 7}? Answer:\n" for i in range(160)))
    return Case(
        ("trace", "demo", *words, "--sampler", "sample"), same_traces, ("--resume",), "continue with --resume --out "
    )


def score_case(folder, _):
    texts = ("Where does Mia live? " * (1 + 7 * i % 11) for i in range(500))
    (folder / "p.txt").write_text("".join(f"{text}\n" for text in texts))
    words = ("trace", "demo", "--score", "--prompts", folder / "p.txt", "--batch-size", 3, "--probes", "output")
    return Case(words, same_traces, ("--resume",), "continue with --resume --out ")


def sweep_case(folder, _):
    sweep = {"models": "demo", "samplers": {"temperature": 0.8}, "seeds": [0, 1], "probes": "output"}
    settings = {"samples": 8, "max_new_tokens": 24, "batch_size": 4}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep | {"settings": settings}))
    return Case(("sweep", folder / "sweep.yaml"), same_traces)


def convert_case(folder, _):
    model = Folder(folder / "tiny", CONFIG | {"num_hidden_layers": 40}).write()
    return Case(("convert", model), same_weights, out=())


def tuned_lens_case(*_):
    words = ("tuned-lens", "demo", "--task", "lab", "--limit", 400, "--steps", 250)
    return Case(words, same_files("lens.safetensors"))


def lab_case(folder, _):
    classes = tuple(PeopleClass(name=str(count), people=2, stated=(count,)) for count in (0, 2, 16))
    world = LAB_WORLD.model_copy(update={"classes": classes, "strangers": 20, "sums": 40, "stories": 20})
    (folder / "small.json").write_text(world.model_dump_json())
    words = ("lab", "train", "--layers", 2, "--width", 32, "--steps", 80, "--world", folder / "small.json")
    return Case(words, same_files("model.safetensors"))


def grade_case(_, request):
    def reply(_):
        time.sleep(0.5)
        return json.dumps({"grade": "correct"})

    server = serving(reply)
    api = server.__enter__()
    request.addfinalizer(lambda: server.__exit__(None, None, None))
    answers = request.getfixturevalue("answers")
    return Case(("grade", answers, "--judge-url", api.url, "--judge-model", "tiny"), same_files(""))


def study_case(_, request):
    return Case(("study", "dynamics", request.getfixturevalue("answers")), same_tables)


def report_case(_, request):
    return Case(("report", request.getfixturevalue("answers")), nothing_to_compare)


def plan_case(*_):
    return Case(("plan", "--topology", "cpu-1", "--batch", 2), nothing_to_compare, advice="interrupted", out=None)


CASES = (
    trace_case, score_case, sweep_case, convert_case, tuned_lens_case, lab_case, grade_case, study_case, report_case,
    plan_case,
)  # fmt: skip


@pytest.mark.parametrize("make_case", CASES, ids=lambda make: make.__name__.removesuffix("_case"))
def test_interrupts_at_random_moments_lose_nothing(make_case, tmp_path, request):
    case, chance = make_case(tmp_path, request), random.Random(make_case.__name__)
    for name in ("compiles", "want"):
        began, want = time.monotonic(), tmp_path / name
        run(case, want)
        whole = time.monotonic() - began
    interrupts, late, rounds, slowest = 0, 0, 0, 0.0
    while interrupts < INTERRUPTS:
        got, more, rounds = tmp_path / f"got-{rounds}", (), rounds + 1
        for attempt in range(6):  # five interrupts at most, and then an end
            process, number = start(case, got, *more), chance.choice(SIGNALS)
            wait_for_handlers(process)
            try:
                _, err = process.communicate(timeout=chance.uniform(0, whole) if attempt < 5 else None)
            except subprocess.TimeoutExpired:
                sent = time.monotonic()
                process.send_signal(number)
                _, err = process.communicate(timeout=SECONDS)
                slowest = max(slowest, time.monotonic() - sent)
            assert "Traceback" not in err, err
            if process.returncode in (0, -number):  # the latter while Python clears its memory: the result is complete
                late += process.returncode != 0
                break
            assert process.returncode == 128 + number, err
            *_, last = err.splitlines()
            assert err.count("jaxtrace: ") == 1 and last.startswith("jaxtrace: interrupted"), err
            if "as it ended" in last or last.endswith("is complete"):
                late += 1
                break
            assert case.advice in last or last == "jaxtrace: interrupted", err  # the latter before it has begun
            interrupts, more = interrupts + 1, case.resume if got.exists() else ()
        case.compare(got, want)
        assert not [name for _, _, names in os.walk(got) for name in names if name.endswith(".tmp")]
    counted = f"{interrupts} interrupts and {late} at the end in {rounds} rounds, none swallowed"
    print(f"{make_case.__name__}: {counted}; the slowest took {slowest:.1f} s")
