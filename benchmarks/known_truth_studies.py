"""The studies, asked of one model of a world whose truth is known: traces, and results on the disk."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel

import jaxtrace as jt
from jaxtrace.grading.labels import Label, digest, write_labels
from jaxtrace.grading.strings import Grade
from jaxtrace.lab import choices as lab_choices
from jaxtrace.lab import tasks as lab
from jaxtrace.lab.documents import documents
from jaxtrace.lab.quiz import ANSWER_TOKENS, WELL_KNOWN
from jaxtrace.lab.settings import WorldSettings
from jaxtrace.lab.world import World
from jaxtrace.run import prepare, run_config
from jaxtrace.studies._shared.page import write_study
from jaxtrace.studies._shared.result import Result
from jaxtrace.studies.confidence.study import ConfidenceConfig, train
from jaxtrace.studies.dynamics.compute import DynamicsConfig, dynamics
from jaxtrace.studies.expansion.compute import ExpansionConfig, expansion, measure_expansions
from jaxtrace.studies.interventions.compute import InterventionsConfig, interventions, measure_interventions
from jaxtrace.studies.interventions.single_token_choices import questions_of
from jaxtrace.studies.lens.compute import LensConfig, lens
from jaxtrace.traces import open_trace
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.trace import Row

Tables = dict[str, pd.DataFrame]
T = TypeVar("T", bound=BaseModel)
PROBES = ("output", "attention", "dispersion", "lens", "hidden")
MODEL = "model"  # the checkpoint in a model's directory, which has its traces and studies beside it
BEGINNING, DRAWN, OF_A_KIND = 12, 4, 60  # tokens of a beginning, and drawn after it; prompts of a kind
NEIGHBOURS, RESAMPLES = 5, 300


@functools.cache
def answered(home: Path) -> StoredTrace:
    """The model's greedy answers to all of the task `lab`."""
    return _traced(home, "answers", task="lab", data=str(home / MODEL), max_new_tokens=ANSWER_TOKENS)


@functools.cache
def continued(home: Path) -> StoredTrace:
    """What it goes on with after beginnings of facts, sums and stories, all equally long."""
    prompts = home / "beginnings.jsonl"
    if not prompts.exists():
        prompts.write_text("".join(beginnings(home / MODEL)), encoding="utf-8")
    return _traced(home, "continued", prompts=prompts, max_new_tokens=DRAWN)


def beginnings(model: Path) -> Iterator[str]:
    """Lines of JSON: the first tokens of other text about the world, `OF_A_KIND` of facts, of sums and of stories."""
    settings, tokenizer = lab.read_settings(model), jt.load(str(model)).tokenizer
    assert tokenizer is not None
    for kind, alone in _worlds(settings).items():
        seen: set[str] = set()
        for document in documents(World(alone), seed=3):
            text = tokenizer.decode(np.array(tokenizer.encode(document, chat=False)[: BEGINNING + 1]))
            if len(seen) < OF_A_KIND and len(tokenizer.encode(text, chat=False)) == BEGINNING + 1 and text not in seen:
                seen.add(text)
                yield pd.Series({"id": f"{kind}-{len(seen)}", "prompt": text, "kind": kind}).to_json() + "\n"


def of_answers(home: Path) -> dict[str, Tables]:
    """Confidence in two senses, and dynamics by how often a fact is stated."""
    trace = answered(home)
    asked = [row.prompt for row in trace.rows]
    facts = {home.name: of_facts(home)}
    labels = known([home], home / "known.jsonl")
    people, alone = (_settings(ConfidenceConfig, group=group, resamples=RESAMPLES) for group in ("name", None))
    counts = sorted({prompt.meta["stated"] for prompt in asked if prompt.meta["kind"] == "fact"})
    by_count = {
        f"stated {count}": trace.filter(
            prompts=[
                i for i, prompt in enumerate(asked) if prompt.meta["kind"] == "fact" and prompt.meta["stated"] == count
            ]
        )
        for count in counts
    }
    return {
        "known": _studied(home, "known", lambda: train(facts, labels, people)[1]),
        "known-by-prompt": _studied(home, "known-by-prompt", lambda: train(facts, labels, alone)[1]),
        "right": _studied(home, "right", lambda: train(facts, None, people)[1]),
        "dynamics": _studied(
            home, "dynamics", lambda: dynamics(by_count, _settings(DynamicsConfig, resamples=RESAMPLES))
        ),
    }


def of_facts(home: Path) -> StoredTrace:
    """The answers to questions of facts."""
    trace = answered(home)
    return trace.filter(prompts=[i for i, row in enumerate(trace.rows) if "stated" in row.prompt.meta])


def known(homes: Sequence[Path], file: Path) -> Path:
    """Writes labels of answers: wrong for facts never stated, right for those stated `WELL_KNOWN` times or more."""
    write_labels([_known(row) for home in homes for row in of_facts(home).rows], file)
    return file


def _known(row: Row) -> Label:
    stated = row.prompt.meta["stated"]
    grade = Grade.CORRECT if stated >= WELL_KNOWN else Grade.UNGRADED if stated else Grade.INCORRECT
    return Label(prompt=row.prompt.id, completion=digest(row.text), grade=grade, by=f"stated {stated} times")


def of_layers(home: Path) -> dict[str, Tables]:
    """Kinds of text by profiles; layers that expand; layers left out."""
    beginnings = continued(home)
    kinds = _settings(LensConfig, by="kind", steps=DRAWN, neighbours=(NEIGHBOURS,))
    return {
        "kinds": _studied(home, "kinds", lambda: lens({"continued": beginnings}, kinds)),
        "expansion": _studied(home, "expansion", lambda: _expansion(home)),
        "interventions": _studied(home, "interventions", lambda: _interventions(home)),
    }


def of_all(homes: Sequence[Path], out: Path) -> dict[str, Tables]:
    """One confidence for all models, and families told apart by profiles, on models that were held out."""
    facts = {home.name: of_facts(home) for home in homes}
    people = _settings(ConfidenceConfig, group="name", resamples=RESAMPLES)
    traces = {home.name: continued(home) for home in homes}
    config = _settings(LensConfig, by="family", steps=DRAWN, neighbours=(NEIGHBOURS,), zero_padding=True)
    return {
        "known": _studied(out, "known", lambda: train(facts, known(homes, out / "known.jsonl"), people)[1]),
        "families": _studied(out, "families", lambda: lens(traces, config)),
    }


def _worlds(settings: WorldSettings) -> dict[str, WorldSettings]:
    """Worlds of the same people whose text is of one kind."""
    silent = tuple(group.model_copy(update={"stated": (0,)}) for group in settings.classes)
    nothing = {"strangers": 0, "sums": 0, "stories": 0, "meetings": 0.0, "passing_sums": 0.0}
    kinds = {
        "fact": {},
        "sum": {"classes": silent, "sums": settings.sums},
        "story": {"classes": silent, "stories": 500},
    }
    return {kind: settings.model_copy(update=nothing | some) for kind, some in kinds.items()}


def _expansion(home: Path) -> Result:
    model = jt.load(str(home / MODEL))
    beginnings = continued(home)
    encoded = [(row.prompt, row.prompt_tokens) for row in beginnings.rows]
    config = _settings(ExpansionConfig)
    return expansion({home.name: measure_expansions(model, encoded, config.mass)}, config)


def _interventions(home: Path) -> Result:
    model = jt.load(str(home / MODEL))
    known = [prompt for prompt in lab_choices.load(home / MODEL, None) if prompt.meta["stated"] >= WELL_KNOWN]
    config = _settings(InterventionsConfig, options="choice", counts=(1, 2) if model.config.layers > 2 else (1,))
    questions = questions_of(model, known, config.options)
    return interventions({home.name: measure_interventions(model, questions, config)}, config)


def _settings(kind: type[T], **fields: Any) -> T:
    return kind.model_validate(fields)


def _traced(home: Path, name: str, **settings: Any) -> StoredTrace:
    out = home / "traces" / name
    config = run_config(model=str(home / MODEL), out=str(out), probes=PROBES, batch_size=32, **settings)
    prepare(config, resume=True).write()
    return open_trace(out)


def _studied(home: Path, name: str, study: Callable[[], Result]) -> Tables:
    """The tables of a study, from the disk where they are."""
    out = home / "studies" / name
    if not (out / "study.html").exists():
        write_study(dataclasses.replace(study(), pictures={}), out)
    return {path.stem: pd.read_csv(path) for path in sorted((out / "tables").glob("*.csv"))}
