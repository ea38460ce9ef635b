"""What the studies find on models that were taught a world whose truth is known: trains nine, and asks every one.

python -m benchmarks.known_truth --workdir DIR --out benchmarks/results/known-truth.md

Stopped, it goes on with the same command; what other code has made needs another --workdir.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console

from benchmarks.known_truth_studies import MODEL, NEIGHBOURS, Tables, of_all, of_answers, of_layers
from benchmarks.machine import description
from benchmarks.table import Table
from benchmarks.timing import say
from jaxtrace.lab.settings import LAB_WORLD
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.train import LAB_RECIPE, run

FAMILIES, DEPTHS = ("llama", "gemma", "qwen"), (2, 4, 6)


def main() -> None:
    """Trains what is not there, runs the studies that are not there, and writes the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="where models, traces and studies are kept")
    parser.add_argument("--out", type=Path, help="also write the tables here: .md")
    args = parser.parse_args()
    homes = []
    for layers in DEPTHS:
        for family in FAMILIES:
            home = args.workdir / f"{family}-{layers}"
            if not (home / MODEL / "README.md").exists():
                say(f"{home.name}: training")
                shape = Shape.model_validate({"family": family, "layers": layers})
                run(home / MODEL, shape, LAB_WORLD, LAB_RECIPE, command(shape), Console(stderr=True))
            homes.append(home)
    found = {}
    for home in homes:
        say(f"{home.name}: studies")
        found[home.name] = of_answers(home) | of_layers(home)
    say("all of them")
    text = "\n".join(table.markdown() for table in tables(found, of_all(homes, args.workdir)))
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")


def command(shape: Shape) -> str:
    """What trains a model of this shape by itself."""
    options = f"--family {shape.family} --layers {shape.layers} --width {shape.width}"
    return f"jaxtrace lab train {options} --steps {LAB_RECIPE.steps} --seed {LAB_RECIPE.seed} --out DIR"


def tables(found: dict[str, dict[str, Tables]], together: dict[str, Tables]) -> Iterator[Table]:
    """One for each question."""
    setting = (
        f"Models by `{command(Shape(family='llama', layers=DEPTHS[0]))}` and its like: {', '.join(FAMILIES)}, of "
        f"{', '.join(map(str, DEPTHS))} layers. {description()}. [95 % intervals]."
    )
    yield Table(
        "Facts never stated told from those stated 16 or 64 times",
        ("model", "answers", "people", "mean entropy", "logistic", "gain", "network", "gain", "sequence probability"),
        [(name, *_confidence(some["known"]["answers"])) for name, some in (found | {"all": together}).items()],
        above=(setting, "AUROC of an answer's score; people are held out together, and resampled for the intervals."),
    )
    yield Table(
        "The same with prompts held out and resampled by themselves",
        ("model", "answers", "prompts", "mean entropy", "logistic", "gain", "network", "gain", "sequence probability"),
        [(name, *_confidence(some["known-by-prompt"]["answers"])) for name, some in found.items()],
        below=("The classifier has seen other questions about the same person.",),
    )
    yield Table(
        "Right answers told from wrong ones, all facts",
        ("model", "answers", "people", "mean entropy", "logistic", "gain", "network", "gain", "sequence probability"),
        [(name, *_confidence(some["right"]["answers"])) for name, some in found.items()],
    )
    counts = list(dict.fromkeys(found[next(iter(found))]["dynamics"]["classes"]["model"]))
    yield Table(
        "Drift of output entropy along an answer (last less first fifth of its tokens, nats), and its class",
        ("model", *counts),
        [(name, *_drifts(some["dynamics"]["classes"], counts)) for name, some in found.items()],
        below=("Classes: d deterministic, e exploratory, b balanced, u undecided; by drift, level and slope.",),
    )
    columns = ("profile", "without length", "last layer", "length")
    yield Table(
        f"Beginnings of facts, sums and stories told apart by lens profiles, AUC (k = {NEIGHBOURS}, prompts held out)",
        ("model", *columns, "guesses", "profile over guesses"),
        [(name, *_kinds(some["kinds"]["auc"], columns)) for name, some in found.items()],
        below=("All beginnings are of 12 tokens, and four are drawn after each, so that length can say nothing.",),
    )
    yield Table(
        f"Families told apart by lens profiles of {len(found)} models on relative depth, AUC (k = {NEIGHBOURS})",
        ("protocol and features", "AUC", "guesses", "over guesses"),
        [
            (f"{row.protocol}, {row.features}", _shown(row, "auc"), f"{row.guesses:.3f}", _shown(row, "gain"))
            for row in _rows(together["families"]["auc"])
        ],
    )
    yield Table(
        "Distances between mean profiles of models, within families and across",
        ("measure", "within", "across", "gap", "p"),
        [
            (row.measure, f"{row.within:.3f}", f"{row.across:.3f}", _shown(row, "gap"), f"{row.p:.3f}")
            for row in _rows(together["families"]["distances"])
        ],
    )
    yield Table(
        "Accuracy on facts stated 16 or 64 times (four choices) with layers left out",
        ("model", "whole", "left out", "layers", "accuracy", "over the whole", "over random layers"),
        [line for name, some in found.items() for line in _skipped(name, some["interventions"])],
    )
    pooled = "size, every prompt and layer"
    held = "size, layer and length held fixed"
    yield Table(
        "Spearman's correlation of ΔH with the change of the candidate set's size",
        ("model", "every prompt and layer", "layer and length held fixed", "layers that expand"),
        [(name, *_expansion(some["expansion"], (pooled, held))) for name, some in found.items()],
    )


def _confidence(answers: pd.DataFrame) -> tuple[str, ...]:
    by = {row.score: row for row in _rows(answers)}
    entropy = by["mean_entropy"]
    trained = (_shown(by[name], x) for name in ("logistic", "mlp") for x in ("auroc", "auroc_gain"))
    return str(entropy.n), str(entropy.groups), _shown(entropy, "auroc"), *trained, _shown(by["msp"], "auroc")


def _drifts(classes: pd.DataFrame, counts: Iterable[str]) -> Iterator[str]:
    by = {row.model: row for row in _rows(classes)}
    for count in counts:
        row = by[count]
        letters = "".join(word[0] for word in (row.drift_class, row.level_class, row.robust_class))
        yield f"{_shown(row, 'drift', 2)} {letters}"


def _kinds(auc: pd.DataFrame, features: Iterable[str]) -> Iterator[str]:
    by = {row.features: row for row in _rows(auc[auc["protocol"] == "grouped"])}
    yield from (_shown(by[name], "auc") for name in features)
    yield f"{by['profile'].guesses:.3f}"
    yield _shown(by["profile"], "gain")


def _skipped(name: str, study: Tables) -> Iterator[tuple[str, ...]]:
    """A line for each way of leaving out layers where any may be."""
    against = {(row.kind, row.k, row.edges, row.against): row for row in _rows(study["comparisons"])}
    whole = ""
    for row in _rows(study["accuracy"]):
        if row.kind == "none":
            whole = _shown(row, "accuracy", 2)
        elif row.edges:
            over = (against.get((row.kind, row.k, True, other)) for other in ("none", "random"))
            layers = "–" if row.kind == "random" else str(row.layers).removesuffix(".0").replace("+", ", ")
            shown = ("–" if one is None else _shown(one, "difference", 2) for one in over)
            yield name, whole, f"{row.k} {row.kind}", layers, _shown(row, "accuracy", 2), *shown


def _expansion(study: Tables, wanted: Iterable[str]) -> Iterator[str]:
    by = {row.of: row for row in _rows(study["correlations"])}
    yield from (_shown(by[name], "spearman", 2) for name in wanted)
    layers = study["layers"]
    yield ", ".join(str(layer) for layer in layers.loc[layers["expansion_low"] > 0, "layer"]) or "none"


def _rows(frame: pd.DataFrame) -> Iterator:
    return frame.itertuples(index=False)


def _shown(row, name: str, digits: int = 3) -> str:
    """An estimate with its interval."""
    value, low, high = (getattr(row, column) for column in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
