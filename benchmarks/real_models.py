"""Studies, samplers and estimators on a real instruct model, with intervals and runtimes.

python -m benchmarks.real_models --model smollm2 --data ../shared/data --workdir DIR --out benchmarks/real_models.md

A stopped run resumes with the same command. --prompts 6 --tokens 12 --least 1 tries every stage. --full takes all
prompts of every task.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.machine import description
from benchmarks.options import benchmark_parser
from benchmarks.real_models_stages import MC1_LABELS, Plan, Shown, Stage, choice_labels
from benchmarks.table import BenchmarkTable, publish
from benchmarks.timing import say
from jaxtrace.errors import first_line, shown
from jaxtrace.model import open_model_checkpoint

LABEL = "SmolLM2-135M-Instruct, Q4_1 dequantised"
LEAST = 10  # answers of each class, for what tells right from wrong
RESUMABLE = ("trace", "study")  # verbs whose unfinished result is continued


def main() -> None:
    """Run the stages that are not finished, and write the tables."""
    parser = benchmark_parser(__doc__, markdown_only=True)
    parser.add_argument("--model", default="smollm2", help="checkpoint directory, hub id or name")
    parser.add_argument("--label", default=LABEL, help="name of the model in the tables")
    parser.add_argument("--data", type=Path, help="folder of local data sets; default: the hub's")
    parser.add_argument("--workdir", type=Path, required=True, help="directory of traces, labels and studies")
    parser.add_argument("--prompts", type=int, help="largest number of prompts of a task")
    parser.add_argument("--tokens", type=int, help="largest number of tokens of an answer")
    parser.add_argument("--full", action="store_true", help="all prompts of every task, and four times the tokens")
    parser.add_argument("--least", type=int, default=LEAST, help="fewest answers of each class")
    args = parser.parse_args()
    model, data = (path.absolute() if path and path.exists() else path for path in (Path(args.model), args.data))
    layers = open_model_checkpoint(str(model)).config.num_layers
    stages = [*Plan(str(model), layers, data, args.prompts, args.full, args.tokens).stages()]
    outcomes = {}
    for number, stage in enumerate(stages, 1):
        say(f"{number}/{len(stages)} {stage.name}")
        outcomes[stage.name] = outcome(stage, args.workdir, args.least)
    text = "\n".join(table.markdown() for table in report(stages, outcomes, args))
    for path, name in ((data, "DATA"), (model, args.model)):
        text = text.replace(str(path), name) if isinstance(path, Path) and path.is_absolute() else text
    publish(text, args.out)
    sys.exit(any(text.startswith("failed") for text, _ in outcomes.values()))


def outcome(stage: Stage, workdir: Path, least: int) -> tuple[str, float]:
    """Run a stage unless it is finished; return what became of it, and its seconds.

    A stage that was stopped is resumed. It begins anew after a change of its words or of a stage that it reads.
    """
    record, begun = _record(stage.name, workdir), _begun(stage, workdir)
    if begun is not None and begun["outcome"] == "done" and (workdir / stage.name).exists():
        return begun["outcome"], begun["seconds"]
    if stage.labels and (few := few_of_a_class(workdir / stage.labels, least)):
        return f"skipped: {few}", 0.0
    record.parent.mkdir(parents=True, exist_ok=True)
    started, content = time.monotonic(), {"words": stage.words, "outcome": "begun"}
    record.write_text(json.dumps(content))
    text = _executed(stage, workdir, resume=begun is not None)
    seconds = time.monotonic() - started
    if text == "done":
        record.write_text(json.dumps({**content, "outcome": text, "seconds": seconds}))
    return text, seconds


def _begun(stage: Stage, workdir: Path) -> dict[str, Any] | None:
    """Return the record of a stage; None if it has other words or is older than that of a stage which it reads."""
    record = _record(stage.name, workdir)
    if not record.exists():
        return None
    stored, made = json.loads(record.read_text()), record.stat().st_mtime_ns
    read = {word.split("/")[0] for word in (*stage.words, stage.labels or "")}
    newer = any(other.stem in read and other.stat().st_mtime_ns > made for other in record.parent.iterdir())
    return None if newer or stored["words"] != [*stage.words] else stored


def _record(name: str, workdir: Path) -> Path:
    return workdir / "done" / f"{name}.json"


def _executed(stage: Stage, workdir: Path, resume: bool) -> str:
    verb, out = stage.words[0], workdir / stage.name
    if verb == MC1_LABELS:
        trace, scores = (workdir / name for name in stage.words[1:])
        if not scores.exists():
            return f"failed: there is no {scores.name}"
        choice_labels(trace, scores, out)
        return "done"
    words = [sys.executable, "-m", "jaxtrace.cli", *stage.words, "--out", stage.name]
    words.append("--resume" if resume and verb in RESUMABLE else "--overwrite")
    done = subprocess.run(words, cwd=workdir, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "done" if done.returncode == 0 else f"failed: {shown(lines[-1] if lines else done.returncode, 200)}"


def few_of_a_class(file: Path, least: int) -> str:
    """Return why a file of labels has too few right or wrong answers; "" if it has enough."""
    if not file.exists():
        return f"there is no {file.name}"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    counts = Counter(line.get("grade", line.get("label")) for line in lines)
    right, wrong = counts["correct"], counts["incorrect"]
    return "" if min(right, wrong) >= least else f"{right} right and {wrong} wrong answers; each class needs {least}"


def report(
    stages: Sequence[Stage], outcomes: dict[str, tuple[str, float]], args: argparse.Namespace
) -> Iterator[BenchmarkTable]:
    """Yield the tables of all stages, and the runtimes."""
    setting = f"{args.label}. [95 % intervals]; n is the number of prompts or answers."
    for stage in stages:
        text, seconds = outcomes[stage.name]
        for table in stage.tables:
            few = few_of_a_class(args.workdir / table.labels, args.least) if table.labels else ""
            missing = few or ("" if text == "done" else text)
            below = (f"`jaxtrace {' '.join(stage.words)}`, {seconds:.0f} s.",)
            if missing:
                yield BenchmarkTable(table.title, ("not shown",), [(missing,)], (setting,), below)
            else:
                yield filled(table, pd.read_csv(args.workdir / table.file), setting, below)
    grades = [(stage.name, *_grades(args.workdir / stage.name)) for stage in stages if stage.words[0] == "grade"]
    columns = ("answers of", "correct", "incorrect", "not attempted", "ungraded", "n")
    yield BenchmarkTable("Answers graded by rules on strings", columns, grades, (setting,))
    times = [(stage.name, *_time(*outcomes[stage.name])) for stage in stages]
    total = sum(seconds for _, seconds in outcomes.values())
    below = ("A stage that was stopped counts the time of its last run.",)
    rows = [*times, ("all", "", f"{total / 60:.1f} min")]
    yield BenchmarkTable("Runtimes", ("stage", "outcome", "time"), rows, (f"{args.label}. {description()}",), below)


def filled(table: Shown, frame: pd.DataFrame, setting: str, below: Sequence[str]) -> BenchmarkTable:
    """Return a table of a study, each estimate with its interval."""
    if table.keep:
        column, values = table.keep
        frame = frame[frame[column].isin(values)]
    names = [*(table.columns or frame.columns)]
    rows = [[_cell(row, name) for name in names] for row in frame.to_dict("records")]
    return BenchmarkTable(table.title, names, rows, (setting,), below)


def _cell(row: dict[Hashable, Any], name: str) -> str:
    value, ends = row[name], [row.get(f"{name}_{end}") for end in ("low", "high")]
    if value is None or value != value:
        return "–"
    text = f"{value:.3g}" if isinstance(value, float) else first_line(ValueError(value)).replace("|", "\\|")
    return text if None in ends else f"{text} [{ends[0]:.3g}, {ends[1]:.3g}]"


def _grades(file: Path) -> tuple[str, ...]:
    if not file.exists():
        return ("–",) * 5
    counts = Counter(json.loads(line)["grade"] for line in file.read_text(encoding="utf-8").splitlines())
    numbers = [counts[grade] for grade in ("correct", "incorrect", "not_attempted", "ungraded")]
    return tuple(map(str, (*numbers, sum(numbers))))


def _time(text: str, seconds: float) -> tuple[str, str]:
    return text.replace("|", "\\|"), f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
