"""Speed of one commit against another, in one run on this machine, as ratios of interleaved calls.

    python -m benchmarks.compare main                          # the working tree against the commit main
    python -m benchmarks.compare v0.4 HEAD --pairs 20 --limit 1.05

Each commit gets a git worktree of its own. Each pair starts a process of either, since equal programs differ by several
per cent between processes; within a pair, their calls alternate. Both run in this environment, with its packages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.intervals import LEAST_PAIRS, LEVEL, median_interval
from benchmarks.machine import this_machine
from benchmarks.options import add_model, benchmark_parser
from benchmarks.shapes import checkpoint
from benchmarks.table import BenchmarkTable
from benchmarks.timing import say

ROOT = Path(__file__).parent.parent
DECODE = {"task": "decode", "tokens": 32, "new": 64}
SCORE = {"task": "score", "tokens": 256}
WORKLOADS: dict[str, dict[str, Any]] = {
    **{
        f"decode {batch}, {probes}": {**DECODE, "batch": batch, "probes": probes}
        for batch in (1, 16)
        for probes in ("none", "no lens", "all")
    },
    **{f"score 2, {probes}": {**SCORE, "batch": 2, "probes": probes} for probes in ("none", "all")},
}
COMMANDS = {  # whole processes
    "help": ["--help"],
    "trace, cold": ["trace", "demo", "--limit", "4", "--max-new-tokens", "16"],
}
CLOCKS = ("wall", "cpu")
Timed = Callable[[], tuple[float, float]]  # → seconds by each clock


def main() -> None:
    """Run the benchmark of the command line; exit with 1 if a workload is slower than the limit."""
    parser = benchmark_parser(__doc__)
    add_model(parser)
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("new", nargs="?", help="commit to compare; default: the working tree, without untracked files")
    names = [*WORKLOADS, *COMMANDS]
    parser.add_argument("--workloads", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--pairs", type=int, default=8, help=f"pairs of processes, at least {LEAST_PAIRS}")
    parser.add_argument("--calls", type=int, default=5, help="calls of a workload in each process")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: seconds of all threads, on a busy machine"
    )
    parser.add_argument("--limit", type=float, help="exit with 1 if an interval of a ratio lies above this number")
    args = parser.parse_args()
    if args.pairs < LEAST_PAIRS:
        parser.error(f"--pairs is {args.pairs}; give {LEAST_PAIRS} or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a killed run deletes its worktrees too
    commits = _commit(args.base), _commit(args.new)
    seconds = _measured(commits, args)
    _table(commits, seconds, args).publish(args.out)
    slower = [name for name, pairs in seconds.items() if args.limit and _interval(pairs)[1] > args.limit]
    if slower:
        raise SystemExit(f"slower than {args.limit}× the base: {', '.join(slower)}")


def _measured(commits: tuple[str, str], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return the seconds [pairs, 2] of the base and the new commit, by workload."""
    clock, directory = CLOCKS.index(args.clock), checkpoint(args.shape, args.workdir)
    seconds = {name: np.zeros((args.pairs, 2)) for name in args.workloads}
    with ExitStack() as stack:
        trees = [stack.enter_context(_worktree(commit)) for commit in commits]
        for pair in range(args.pairs):
            first = pair % 2
            with ExitStack() as processes:
                workers = [processes.enter_context(_worker(tree, directory)) for tree in trees]
                for name in [name for name in args.workloads if name in WORKLOADS]:
                    calls = [_of_worker(worker, name) for worker in workers]
                    seconds[name][pair] = interleaved(calls, args.calls, clock, first)
            for name in [name for name in args.workloads if name in COMMANDS]:
                calls = [_of_command(tree, name) for tree in trees]
                seconds[name][pair] = interleaved(calls, 1, clock, first, warm_up=False)
            say(f"pair {pair + 1} of {args.pairs}")
    return seconds


def interleaved(calls: list[Timed], count: int, clock: int, first: int, *, warm_up: bool = True) -> list[float]:
    """Return the median seconds of two calls that are made in turn, in alternating order, after a warm-up of each."""
    seconds: list[list[float]] = [[], []]
    for i in range(-warm_up, count):
        for side in (first, 1 - first) if i % 2 == 0 else (1 - first, first):
            taken = calls[side]()[clock]
            if i >= 0:
                seconds[side].append(taken)
    return [statistics.median(of_side) for of_side in seconds]


def _interval(seconds: np.ndarray) -> tuple[float, float, float]:
    """Return the median of the ratios new / base, and its interval."""
    return median_interval(seconds[:, 1] / seconds[:, 0])


def _table(commits: tuple[str, str], seconds: dict[str, np.ndarray], args: argparse.Namespace) -> BenchmarkTable:
    rows = []
    for name, pairs in seconds.items():
        median, low, high = _interval(pairs)
        verdict = "slower" if low > 1 else "faster" if high < 1 else "no difference seen"
        milliseconds = [f"{1e3 * each:.1f}" for each in np.median(pairs, axis=0)]
        rows.append([name, *milliseconds, f"{median:.3f}", f"{low:.3f}", f"{high:.3f}", verdict])
    return BenchmarkTable(
        title=f"{commits[1][:10]} against {commits[0][:10]}, {args.shape}: {args.pairs} pairs, {args.clock} time",
        columns=("workload", "base, ms", "new, ms", "new / base", "low", "high", ""),
        rows=rows,
        above=(this_machine().line,),
        below=(
            f"Medians over pairs of processes of a process's median call, and of the pairs' ratios, with {LEVEL:.0%} "
            "intervals from order statistics.",
        ),
    )


def _commit(name: str | None) -> str:
    """Return the hash of a commit; of the working tree's tracked files without a name."""
    if name is None:
        return _git("stash", "create") or _git("rev-parse", "HEAD")
    return _git("rev-parse", "--verify", f"{name}^{{commit}}")


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """Check a commit out in a temporary directory, and delete it at the end."""
    with tempfile.TemporaryDirectory(prefix="jaxtrace-compare-") as folder:
        tree = Path(folder).resolve() / "tree"
        _git("worktree", "add", "--detach", str(tree), commit)
        try:
            (tree / "jaxtrace" / "kernels").symlink_to(tree / "kernels")  # where the installed package has them
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


@contextmanager
def _worker(tree: Path, model: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process of `compare_worker` and end it."""
    command = [sys.executable, str(Path(__file__).with_name("compare_worker.py")), str(tree), str(model)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(tree)
    )
    try:
        yield process
    finally:
        process.communicate()


def _of_worker(worker: subprocess.Popen[str], name: str) -> Timed:
    assert worker.stdin is not None and worker.stdout is not None
    stdin, stdout = worker.stdin, worker.stdout

    def call() -> tuple[float, float]:
        stdin.write(json.dumps(WORKLOADS[name]) + "\n")
        stdin.flush()
        if not (line := stdout.readline()):
            raise SystemExit(f"{name}: a process ended; see its message above")
        wall, cpu = json.loads(line)
        return wall, cpu

    return call


def _of_command(tree: Path, name: str) -> Timed:
    """Return a call of the command line in a new process, with an empty cache of compiled programs."""

    def call() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            out = ["--out", f"{folder}/run"] if "--help" not in COMMANDS[name] else []
            environment = _environment(tree) | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
            began, used = time.perf_counter(), _children_cpu()
            subprocess.run(
                [sys.executable, "-m", "jaxtrace.cli", *COMMANDS[name], *out],
                check=True,
                stdout=subprocess.DEVNULL,
                cwd=folder,
                env=environment,
            )
            return time.perf_counter() - began, _children_cpu() - used

    return call


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment(tree: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(tree)}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
