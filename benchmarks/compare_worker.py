"""A process that times the workloads of `benchmarks.compare` with the jaxtrace of one source tree.

    python benchmarks/compare_worker.py TREE CHECKPOINT

Each line of stdin is a workload as JSON, each line of stdout its seconds: [wall, CPU of the process]. It uses only the
public API, so that it runs with older versions.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

NO_LENS = ("output", "attention", "dispersion", "hidden")
VOCABULARY = 1000  # ids of prompts are below it


def main(tree: str, checkpoint: str) -> None:
    """Load the model, then time one workload after another until stdin ends."""
    sys.path[0] = tree  # in place of this file's directory
    jt = importlib.import_module("jaxtrace")
    for module in (jt, importlib.import_module("jaxtrace.kernels")):
        assert Path(module.__file__ or "").is_relative_to(tree), f"{module.__file__} is not of {tree}"
    model = jt.load(checkpoint)
    for line in sys.stdin:
        call = _call(jt, model, **json.loads(line))
        began = time.perf_counter(), time.process_time()
        call()
        print(json.dumps([time.perf_counter() - began[0], time.process_time() - began[1]]), flush=True)


def _call(jt: Any, model: Any, task: str, probes: str, batch: int, tokens: int, new: int = 0) -> Any:
    """Return a function that decodes or scores a batch once."""
    chosen = {"none": jt.Probes.none(), "no lens": jt.Probes.of(*NO_LENS), "all": jt.Probes.all()}[probes]
    prompts = [[(7 * row + 13 * i) % VOCABULARY for i in range(tokens)] for row in range(batch)]
    options = {"probes": chosen, "batch_size": batch}
    if task == "score":
        return lambda: model.score(prompts, **options)
    return lambda: model.generate(prompts, max_new_tokens=new, stop_tokens=(), **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
