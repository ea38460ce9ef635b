"""Whole runs: `jaxtrace trace` beside a transformers script that computes and stores the same numbers.

    python -m benchmarks.end_to_end --model smollm2 --data ../shared/data/truthfulqa/TruthfulQA.csv
    python -m benchmarks.end_to_end --model smollm2 --data … --questions 3 --new 8 --batch 2     # a quick try

Both run in new processes, from their start to their end, and the numbers of both are compared before any time is shown.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import jaxtrace as jt
from benchmarks.agreement import differences
from benchmarks.end_to_end_spans import exclusive
from benchmarks.machine import description
from benchmarks.options import benchmark_parser
from benchmarks.table import BenchmarkTable
from benchmarks.timing import run_in_new_process, say
from jaxtrace.checkpoints.local import local_copy
from jaxtrace.models.published import find_published
from jaxtrace.tasks import load_task

# Where activities overlap, time belongs to the first of these that runs.
JAXTRACE = ["compiling", "prefill", "decode", "tokenising", "writing", "draining", "plots, tables", "start-up"]
TRANSFORMERS = ["model", "decode", "tokenising", "writing", "draining", "start-up"]
DEVICE = ("prefill", "decode", "model")
BELOW = (
    "Seconds from the start of the process to its end. Decode and prefill are the times in which the device works on "
    "them, whatever the host does meanwhile; other activities count where the device is idle. Device work: share of "
    "the time after start-up, which is imports and loading. transformers: model is its forward passes, prefill too; "
    "decode is its computation of the metrics, which is device work too.",
)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--model", default="smollm2", help="checkpoint directory, or short name of a local copy")
    parser.add_argument("--data", type=Path, required=True, help="TruthfulQA.csv")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--new", type=int, default=64, help="largest number of tokens of an answer")
    parser.add_argument("--batch", type=int, default=16, help="rows decoded at once")
    args = parser.parse_args()
    model = _directory(args.model)
    texts = [prompt.text for prompt in load_task("truthfulqa", args.data, args.questions)]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "questions.json").write_text(json.dumps(texts))
        words = [str(model), f"{work}/questions.json", str(args.new), str(args.batch), f"{work}/torch.parquet"]
        torch = _timed("end_to_end_torch", TRANSFORMERS, *words)
        runs = {}
        for cache in ("empty compile cache", "warm compile cache"):
            words = f"--limit {args.questions} --max-new-tokens {args.new} --batch-size {args.batch}".split()
            words += ["--task", "truthfulqa", "--data", str(args.data), "--stop-repeats", "0"]
            words = ["trace", str(model), *words, "--out", str(work / cache)]
            runs[f"jaxtrace, {cache}"] = _timed("end_to_end_jaxtrace", JAXTRACE, *words, cache=f"{work}/cache")
        tokens, agreement = _agreement(work / "warm compile cache", work / "torch.parquet")
    runs["transformers"] = torch
    activities = list(dict.fromkeys([*JAXTRACE, *TRANSFORMERS, "rest"]))
    BenchmarkTable(
        title=f"Whole runs of {model.name}: {len(texts)} questions, at most {args.new} tokens, batch {args.batch}",
        columns=("run", "total", "tokens/s", *activities, "device work", "vs transformers"),
        rows=[_row(name, seconds, activities, tokens, sum(torch.values())) for name, seconds in runs.items()],
        above=(f"Machine: {description()}.",),
        below=(*BELOW, agreement),
    ).publish(args.out)


def _directory(model: str) -> Path:
    published = None if Path(model).is_dir() else find_published(model)
    found = Path(model) if published is None else local_copy(published)
    if found is None or not found.is_dir():
        raise SystemExit(f"--model: {model} is no checkpoint directory here; name one, or set $JAXTRACE_MODELS")
    return found


def _timed(module: str, order: list[str], *words: str, cache: str = "") -> dict[str, float]:
    """Run a module of this folder in a new process, with a compile cache, and return the seconds of its activities."""
    say(f"{module} {' '.join(words)}")
    began = time.time()
    environment = {"JAX_COMPILATION_CACHE_DIR": cache}
    result = run_in_new_process(f"benchmarks.{module}", str(began), *words, environment=environment)
    return exclusive(result["spans"], began, time.time(), order)


def _agreement(ours: Path, theirs: Path) -> tuple[int, str]:
    """Return the number of tokens, and a line on the differences of all numbers of both runs.

    Raises:
      AssertionError: a metric is missing on one side, or the numbers differ.
    """
    from benchmarks.end_to_end_torch import read

    stored, rows = read(theirs), jt.open(ours).rows
    largest: dict[str, float] = {}
    same = total = 0
    for number, row in enumerate(rows):
        n = min(row.length, len(stored[number]["token"]))
        missing = row.metrics.keys() - stored[number].keys()
        assert not missing, f"transformers' side lacks {', '.join(sorted(missing))}"
        a = {name: x[None, :n] for name, x in row.metrics.items()}
        b = {name: stored[number][name][None, :n].reshape(x.shape) for name, x in a.items()}
        for name, x in differences(a, b).items():
            largest[name] = max(x, largest.get(name, 0.0))
        equal = bool((a["token"] == b["token"]).all())
        assert not equal or row.length == len(stored[number]["token"]), f"question {number}: answers differ in length"
        same, total = same + equal, total + row.length
    each = ", ".join(f"{name} {x:.0e}" for name, x in largest.items())
    return total, f"{same} of {len(rows)} answers have the same tokens; largest absolute difference: {each}."


def _row(name: str, seconds: dict[str, float], activities: list[str], tokens: int, torch: float) -> list[str]:
    total = sum(seconds.values())
    device = sum(seconds.get(activity, 0.0) for activity in DEVICE)
    return [
        name,
        f"{total:.1f}",
        f"{tokens / total:.1f}",
        *(f"{seconds[activity]:.2f}" if activity in seconds else "–" for activity in activities),
        f"{device / (total - seconds['start-up']):.0%}",
        f"{torch / total:.2f}×",
    ]


if __name__ == "__main__":
    main()
