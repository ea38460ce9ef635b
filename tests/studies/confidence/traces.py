"""Hand-made traces of which it is known what tells right answers from wrong ones."""

import dataclasses

import numpy as np

from jaxtrace.prompts import Prompt
from tests.figures.traces import row, trace

GROUPS = ("output", "dispersion")


def answers(rng, count, steps=3, samples=1, groups=GROUPS, entropies=None):
    """`count` prompts, each answered `samples` times, with random metrics, or with entropies [rows, steps]."""
    rows = []
    for number in range(count * samples):
        one = row(rng, [f" t{step}" for step in range(steps)], groups=groups, layers=4, heads=2)
        name = f"q{number // samples}"
        prompt = Prompt(text=f"Question {name}?", id=f"{name}-sample-{number % samples}" if samples > 1 else name)
        if entropies is not None:
            one.metrics["entropy"] = np.asarray(entropies[number], np.float32)
        rows.append(dataclasses.replace(one, prompt=prompt))
    return trace(rows, layers=4, heads=2)


def write_labels(path, made, labels):
    """A CSV of prompts and labels."""
    lines = [f"{row.prompt.id},{str(bool(label)).lower()}" for row, label in zip(made.rows, labels, strict=True)]
    path.write_text("\n".join(["prompt,label", *lines]), encoding="utf-8")
    return path
