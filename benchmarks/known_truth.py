"""Findings of the studies on nine models that are trained on a world with known facts.

python -m benchmarks.known_truth --workdir DIR --out benchmarks/results/known-truth.md

A stopped run resumes with the same command. Results of another version of the code need another --workdir.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from benchmarks.known_truth_studies import MODEL, NEIGHBOURS, Tables, answer_tables, joint_tables, layer_tables
from benchmarks.machine import description
from benchmarks.options import benchmark_parser
from benchmarks.table import BenchmarkTable, publish
from benchmarks.timing import say
from jaxtrace.lab.settings import LAB_RECIPE, LAB_WORLD
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.train import run

FAMILIES, DEPTHS = ("llama", "gemma", "qwen"), (2, 4, 6)


def main() -> None:
    """Train the missing models, run the missing studies, and write the tables."""
    parser = benchmark_parser(__doc__, markdown_only=True)
    parser.add_argument("--workdir", type=Path, required=True, help="directory of models, traces and studies")
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
    studies = {}
    for home in homes:
        say(f"{home.name}: studies")
        studies[home.name] = answer_tables(home) | layer_tables(home)
    say("studies of all models together")
    text = "\n".join(table.markdown() for table in tables(studies, joint_tables(homes, args.workdir)))
    publish(text, args.out)


def command(shape: Shape) -> str:
    """Return the command that trains one model of this shape."""
    options = f"--family {shape.family} --layers {shape.layers} --width {shape.width}"
    return f"jaxtrace lab train {options} --steps {LAB_RECIPE.steps} --seed {LAB_RECIPE.seed} --out DIR"


def tables(studies: dict[str, dict[str, Tables]], together: dict[str, Tables]) -> Iterator[BenchmarkTable]:
    """Yield a table for each question."""
    scores = ("mean entropy", "logistic", "gain", "network", "gain", "sequence probability")
    setting = (
        f"Models trained by `{command(Shape(family='llama', layers=DEPTHS[0]))}` etc.: {', '.join(FAMILIES)}, with "
        f"{', '.join(map(str, DEPTHS))} layers. {description()}. [95 % intervals]."
    )
    yield BenchmarkTable(
        "Facts never stated told from those stated 16 or 64 times",
        ("model", "answers", "people", *scores),
        [(name, *_confidence(study["known"]["answers"])) for name, study in (studies | {"all": together}).items()],
        above=(
            setting,
            "AUROC of an answer's score; each person's prompts are held out together; intervals resample people.",
        ),
    )
    yield BenchmarkTable(
        "The same with single prompts held out and resampled",
        ("model", "answers", "prompts", *scores),
        [(name, *_confidence(study["known-by-prompt"]["answers"])) for name, study in studies.items()],
        below=("The classifier was trained on other questions about the same person.",),
    )
    yield BenchmarkTable(
        "Right answers told from wrong ones, all facts",
        ("model", "answers", "people", *scores),
        [(name, *_confidence(study["right"]["answers"])) for name, study in studies.items()],
    )
    counts = list(dict.fromkeys(studies[next(iter(studies))]["dynamics"]["classes"]["model"]))
    yield BenchmarkTable(
        "Drift of output entropy along an answer (last less first fifth of its tokens, nats), and its class",
        ("model", *counts),
        [(name, *_drifts(study["dynamics"]["classes"], counts)) for name, study in studies.items()],
        below=("Classes: d deterministic, e exploratory, b balanced, u undecided; by drift, level and slope.",),
    )
    columns = ("profile", "without length", "last layer", "length")
    yield BenchmarkTable(
        f"Beginnings of facts, sums and stories told apart by lens profiles, AUC (k = {NEIGHBOURS}, prompts held out)",
        ("model", *columns, "guesses", "profile over guesses"),
        [(name, *_kinds(study["kinds"]["auc"], columns)) for name, study in studies.items()],
        below=("All beginnings have 12 tokens and are continued by four, so that length carries no information.",),
    )
    yield BenchmarkTable(
        f"Families told apart by lens profiles of {len(studies)} models on relative depth, AUC (k = {NEIGHBOURS})",
        ("protocol and features", "AUC", "guesses", "over guesses"),
        [
            (f"{row.protocol}, {row.features}", _shown(row, "auc"), f"{row.guesses:.3f}", _shown(row, "gain"))
            for row in _rows(together["families"]["auc"])
        ],
    )
    yield BenchmarkTable(
        "Distances between mean profiles of models, within families and across",
        ("measure", "within", "across", "gap", "p"),
        [
            (row.measure, f"{row.within:.3f}", f"{row.across:.3f}", _shown(row, "gap"), f"{row.p:.3f}")
            for row in _rows(together["families"]["distances"])
        ],
    )
    yield BenchmarkTable(
        "Accuracy on facts stated 16 or 64 times (four choices) with layers ablated",
        ("model", "whole model", "ablation", "layers", "accuracy", "over the whole model", "over random layers"),
        [line for name, study in studies.items() for line in _ablations(name, study["interventions"])],
    )
    pooled = "size, every prompt and layer"
    held = "size, layer and length held fixed"
    yield BenchmarkTable(
        "Spearman's correlation of ΔH with the change of the candidate set's size",
        ("model", "every prompt and layer", "layer and length held fixed", "layers that expand"),
        [(name, *_expansion(study["expansion"], (pooled, held))) for name, study in studies.items()],
    )


def _confidence(answers: pd.DataFrame) -> tuple[str, ...]:
    by_score = {row.score: row for row in _rows(answers)}
    entropy = by_score["mean_token_entropy"]
    trained = (_shown(by_score[name], x) for name in ("logistic", "mlp") for x in ("auroc", "auroc_gain"))
    return (
        str(entropy.n),
        str(entropy.groups),
        _shown(entropy, "auroc"),
        *trained,
        _shown(by_score["maximum_sequence_probability"], "auroc"),
    )


def _drifts(classes: pd.DataFrame, counts: Iterable[str]) -> Iterator[str]:
    by_count = {row.model: row for row in _rows(classes)}
    for count in counts:
        row = by_count[count]
        letters = "".join(word[0] for word in (row.drift_class, row.level_class, row.robust_class))
        yield f"{_shown(row, 'drift', 2)} {letters}"


def _kinds(auc: pd.DataFrame, features: Iterable[str]) -> Iterator[str]:
    by_features = {row.features: row for row in _rows(auc[auc["protocol"] == "grouped"])}
    yield from (_shown(by_features[name], "auc") for name in features)
    yield f"{by_features['profile'].guesses:.3f}"
    yield _shown(by_features["profile"], "gain")


def _ablations(name: str, study: Tables) -> Iterator[tuple[str, ...]]:
    """Yield a line for each ablation that may remove any layer."""
    comparisons = {(row.kind, row.k, row.edges, row.against): row for row in _rows(study["comparisons"])}
    whole = ""
    for row in _rows(study["accuracy"]):
        if row.kind == "none":
            whole = _shown(row, "accuracy", 2)
        elif row.edges:
            differences = (comparisons.get((row.kind, row.k, True, other)) for other in ("none", "random"))
            layers = "–" if row.kind == "random" else str(row.layers).removesuffix(".0").replace("+", ", ")
            shown = ("–" if x is None else _shown(x, "difference", 2) for x in differences)
            yield name, whole, f"{row.k} {row.kind}", layers, _shown(row, "accuracy", 2), *shown


def _expansion(study: Tables, correlations: Iterable[str]) -> Iterator[str]:
    by_name = {row.of: row for row in _rows(study["correlations"])}
    yield from (_shown(by_name[name], "spearman", 2) for name in correlations)
    layers = study["layers"]
    yield ", ".join(str(layer) for layer in layers.loc[layers["expansion_low"] > 0, "layer"]) or "none"


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return frame.itertuples(index=False)


def _shown(row: Any, name: str, digits: int = 3) -> str:
    """Return an estimate with its interval, as text."""
    value, low, high = (getattr(row, column) for column in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
