"""Stages of `benchmarks.real_models`: commands of jaxtrace, and the tables that they leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jaxtrace.estimators.registry import find_estimators
from jaxtrace.traces import open_trace

DATA = {
    "truthfulqa": "truthfulqa/TruthfulQA.csv",
    "simpleqa": "simpleqa/simple_qa_test_set.csv",
    "gsm8k": "gsm8k/test.jsonl",
    "mmlu": "mmlu/test",
    "story-questions": "tinystories/tinystories_val_head.txt",
}
MC1_LABELS = "mc1-labels"  # a stage without a command: `choice_labels`
CHOICES = "truthfulqa/mc_task.json"
SUBJECTS, FORMATS = 57, 3  # strata of MMLU and of the requests for formats
WIDE = ("--probes", "output,attention,dispersion,hidden", "--alphas", "0.25,0.5,2,5")
NARROW = ("--probes", "output,attention", "--alphas", "0.25,0.5,2,5")
LENS = ("--raw", "--probes", "output,lens")
SAMPLERS = {
    "greedy": (),
    "sample": ("--sampler", "sample"),
    "entropix": ("--sampler", "entropix"),
    "dslider": ("--sampler", "dslider"),
}


@dataclass(frozen=True)
class Shown:
    """A table of the report.

    Attributes:
      file: CSV file in the work folder.
      title: heading.
      columns: columns to show, an estimate with its interval under one name.
      labels: file of labels whose two classes have to be large enough; None for a table that needs no classes.
      keep: column and values of the rows to show; None for all rows.
    """

    file: str
    title: str
    columns: tuple[str, ...]
    labels: str | None = None
    keep: tuple[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Stage:
    """A command of jaxtrace and what the report shows of it.

    Attributes:
      name: name in the work folder.
      words: command line behind `jaxtrace`, without the output; `MC1_LABELS` stands for `choice_labels`.
      labels: file of labels whose two classes have to be large enough; a stage without them is skipped.
    """

    name: str
    words: tuple[str, ...]
    tables: tuple[Shown, ...] = ()
    labels: str | None = None


@dataclass(frozen=True)
class Plan:
    """Model, data and sizes.

    Attributes:
      layers: number of layers; the residuals of the middle one and of the last one are stored for the estimators.
      data: folder of local copies of the data sets; None for the hub's.
      most: largest number of prompts of a task; None for the committed numbers.
      full: True for all prompts of each task, and four times the tokens.
      most_tokens: largest number of tokens of an answer; None for the committed numbers.
    """

    model: str
    layers: int
    data: Path | None
    most: int | None
    full: bool
    most_tokens: int | None = None

    def task(self, name: str, count: int | None = None, key: str = "", strata: int = 0) -> tuple[str, ...]:
        """Return the options that choose a task's prompts: `count` of them, by strata if there are enough."""
        words = ["--task", name]
        if name in DATA and self.data is not None:
            words += ["--data", str(self.data / DATA[name])]
        if self.full or (count is None and self.most is None):
            return tuple(words)
        number = min(x for x in (count, self.most) if x is not None)
        return (*words, "--sample", str(number), *(("--stratify", key) if key and number >= strata else ()))

    def stages(self) -> Iterator[Stage]:
        """Yield the stages in their order; each uses results of earlier ones."""
        yield from self._traces()
        yield from self._answers()
        yield from self._layers()

    def _trace(self, name: str, task: Sequence[str], tokens: int, *more: str) -> Stage:
        tokens = min(4 * tokens if self.full else tokens, self.most_tokens or 4 * tokens)
        return Stage(name, ("trace", self.model, *task, "--max-new-tokens", str(tokens), *more))

    def _traces(self) -> Iterator[Stage]:
        residuals = ("--residuals", f"{self.layers // 2},{self.layers}")
        yield self._trace("truthfulqa", self.task("truthfulqa", 200), 64, *WIDE, *residuals)
        yield self._trace("requests", self.task("factual-creative"), 64, *NARROW)
        yield self._trace("mmlu", self.task("mmlu", 200, "subject", SUBJECTS), 16, *NARROW, *residuals)
        yield self._trace("simpleqa", self.task("simpleqa", 200), 32, *NARROW)
        for name, words in SAMPLERS.items():
            yield self._trace(f"gsm8k-{name}", self.task("gsm8k", 100), 256, *NARROW, *words)
        drawn = ("--samples", "10", "--sampler", "sample")
        yield self._trace("samples", self.task("mmlu", 114, "subject", SUBJECTS), 64, *NARROW, *residuals, *drawn)
        for name in ("mmlu", "simpleqa", "gsm8k-greedy", "samples"):
            yield Stage(f"{name}.labels", ("grade", name))

    def _answers(self) -> Iterator[Stage]:
        choices = "hub" if self.data is None else str(self.data / CHOICES)
        scores = ("mc1", "mc2", "mc3", "mc1_chance", "n")
        yield Stage(
            "dynamics",
            ("study", "dynamics", "truthfulqa", "--choices", choices),
            (
                Shown("dynamics/tables/choices.csv", "TruthfulQA: multiple choice by log-probability", scores),
                Shown(
                    "dynamics/tables/classes.csv",
                    "TruthfulQA: class of the answers' output entropy, by three rules",
                    ("drift_class", "level_class", "robust_class", "drift", "slope", "n"),
                ),
                Shown("dynamics/tables/class_counts.csv", "TruthfulQA: classes of single answers", ()),
                Shown(
                    "dynamics/tables/length_control.csv",
                    "TruthfulQA: attention entropy, early and late",
                    ("metric", "early", "late", "drift", "n"),
                ),
                Shown(
                    "dynamics/tables/choices_auroc.csv",
                    "TruthfulQA: features of the generated answer against a wrong MC1 choice",
                    ("feature", "auroc", "auroc_given_length", "n", "wrong"),
                    "truthfulqa.labels",
                ),
            ),
        )
        yield Stage("truthfulqa.labels", (MC1_LABELS, "truthfulqa", "dynamics/tables/choices_questions.csv"))
        compared = ("metric", "control", "difference", "g", "auroc", "p", "p_adjusted", "n_first", "n_second")
        yield Stage(
            "patterns-requests",
            ("study", "patterns", "requests", "--by", "condition", "--condition", "factual", "--condition", "creative"),
            (Shown("patterns-requests/tables/comparisons.csv", "Factual against creative requests", compared),),
        )
        yield Stage(
            "patterns-mmlu",
            ("study", "patterns", "mmlu", "--by", "correctness", "--labels", "mmlu.labels"),
            (Shown("patterns-mmlu/tables/comparisons.csv", "MMLU: right against wrong answers", compared),),
            "mmlu.labels",
        )
        runs = tuple(f"gsm8k-{name}" for name in SAMPLERS)
        yield Stage(
            "samplers",
            ("study", "samplers", *runs),
            (
                Shown(
                    "samplers/tables/samplers.csv",
                    "GSM8K by sampler",
                    ("sampler", "accuracy", "entropy", "varentropy", "length", "n"),
                ),
                Shown(
                    "samplers/tables/comparisons.csv",
                    "GSM8K: each sampler minus greedy",
                    ("sampler", "of", "difference", "effect", "p", "n"),
                ),
            ),
        )
        measures = ("estimator", "auroc", "prr", "risk", "ece", "n", "passes")
        titles = {
            "truthfulqa": "TruthfulQA, right MC1 choices",
            "mmlu": "MMLU",
            "samples": "MMLU, 10 samples of a prompt",
        }
        for name, title in titles.items():
            yield Stage(
                f"{name}.estimates.parquet",
                ("estimate", name, "--labels", f"{name}.labels", "--estimators", estimators_of(name)),
                (Shown(f"{name}.estimates.evaluation.csv", f"Estimators: {title}", measures),),
                f"{name}.labels",
            )

    def _layers(self) -> Iterator[Stage]:
        auc = ("features", "protocol", "k", "auc", "guesses", "gain", "n")
        yield self._trace("stories", self.task("story-questions", 192, "kind", 3), 8, *LENS, "--sampler", "sample")
        yield self._trace("formats", self.task("formats", 150, "format", FORMATS), 64, *LENS)
        for name, by, title in (("stories", "kind", "kinds of tasks"), ("formats", "format", "formats")):
            file = f"lens-{name}/tables/auc.csv"
            table = Shown(file, f"Entropy-Lens: {title} by their profiles", auc, keep=("protocol", ("grouped",)))
            yield Stage(f"lens-{name}", ("study", "lens", name, "--by", by), (table,))
        own = ("--model", self.model, *self.task("mmlu", 114, "subject", SUBJECTS))
        yield Stage(
            "expansion",
            ("study", "expansion", *own),
            (
                Shown(
                    "expansion/tables/correlations.csv",
                    "Entropy-Lens: ΔH and the size of the candidate set, MMLU",
                    ("of", "spearman", "n"),
                ),
            ),
        )
        yield Stage(
            "interventions",
            (
                "study",
                "interventions",
                *own,
                "--count",
                "1",
                "--draws",
                "3",
            ),
            (
                Shown(
                    "interventions/tables/accuracy.csv",
                    "Entropy-Lens: MMLU with a layer skipped",
                    ("kind", "k", "edges", "accuracy", "layers", "n"),
                ),
                Shown(
                    "interventions/tables/comparisons.csv",
                    "Entropy-Lens: MMLU with a layer skipped, compared",
                    ("kind", "against", "k", "edges", "difference", "effect", "p", "n"),
                ),
            ),
        )


def estimators_of(name: str) -> str:
    """Return the estimators of a trace: of several answers to a prompt, those over samples beside two of one pass."""
    if name != "samples":
        return "all"
    sampling = [each.name for each in find_estimators(("all",)) if each.passes == "samples"]
    return ",".join(["mean_token_entropy", "perplexity", *sampling])


def choice_labels(trace: Path, scores: Path, file: Path) -> None:
    """Write labels of a TruthfulQA trace: an answer counts as correct if the MC1 choice of its question is right."""
    right = pd.read_csv(scores).set_index("question")["mc1"]
    prompts = [(row.prompt.id, (row.prompt.text or "").strip()) for row in open_trace(trace).rows]
    known = [(name, right[text]) for name, text in prompts if text in right.index and right[text] in (0, 1)]
    labels = [{"prompt": name, "label": "correct" if value else "incorrect"} for name, value in known]
    pd.DataFrame(labels, columns=["prompt", "label"]).to_json(file, orient="records", lines=True)
