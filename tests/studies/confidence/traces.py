"""Hand-made traces in which a known metric tells right answers from wrong ones."""

import numpy as np

from tests.figures.traces import row, trace

GROUPS = ("output", "dispersion")


def answers(rng, count, steps=3, samples=1, groups=GROUPS, entropies=None):
    """Return `count` prompts, each answered `samples` times, with random metrics or entropies [rows, steps]."""
    rows = []
    for number in range(count * samples):
        name, pieces = f"q{number // samples}", [f" t{step}" for step in range(steps)]
        about = {"prompt": f"Question {name}?", "id": f"{name}-sample-{number % samples}" if samples > 1 else name}
        rows.append(row(rng, pieces, groups=groups, layers=4, heads=2, **about))
        if entropies is not None:
            rows[-1].metrics["entropy"] = np.asarray(entropies[number], np.float32)
    return trace(rows, layers=4, heads=2)


def write_labels(path, answered, labels):
    """Write a CSV file of prompts and labels."""
    lines = [f"{row.prompt.id},{str(bool(label)).lower()}" for row, label in zip(answered.rows, labels, strict=True)]
    path.write_text("\n".join(["prompt,label", *lines]), encoding="utf-8")
    return path
