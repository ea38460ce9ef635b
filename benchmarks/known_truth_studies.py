"""Studies of one model of a world with known facts: its traces, and the results on disk."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import jaxtrace as jt
from jaxtrace.grading.choices import choice_questions
from jaxtrace.grading.labels import Label, digest, write_labels
from jaxtrace.grading.strings import Grade
from jaxtrace.lab import choices as lab_choices
from jaxtrace.lab import tasks as lab
from jaxtrace.lab.documents import documents
from jaxtrace.lab.quiz import ANSWER_TOKENS, WELL_KNOWN
from jaxtrace.lab.settings import WorldSettings
from jaxtrace.lab.world import World
from jaxtrace.run import prepare, run_config
from jaxtrace.studies._shared.expansions import measure_expansions
from jaxtrace.studies._shared.page import write_study
from jaxtrace.studies._shared.result import Result
from jaxtrace.studies.confidence.compute import train
from jaxtrace.studies.confidence.settings import ConfidenceConfig
from jaxtrace.studies.dynamics.compute import DynamicsConfig, dynamics
from jaxtrace.studies.expansion.compute import ExpansionConfig, expansion
from jaxtrace.studies.interventions.compute import InterventionsConfig, interventions, measure_interventions
from jaxtrace.studies.lens.compute import LensConfig, lens
from jaxtrace.traces import open_trace
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.row import Row

Tables = dict[str, pd.DataFrame]
PROBES = ("output", "attention", "dispersion", "lens", "hidden")
MODEL = "model"  # checkpoint in a model's directory, beside its traces and studies
BEGINNING, NEW_TOKENS, PER_KIND = 12, 4, 60  # tokens of a beginning, tokens generated after it; prompts of each kind
NEIGHBOURS, RESAMPLES = 5, 300


@functools.cache
def answers_trace(home: Path) -> StoredTrace:
    """Return the model's greedy answers to all prompts of the task `lab`."""
    return _run_trace(home, "answers", task="lab", data=str(home / MODEL), max_new_tokens=ANSWER_TOKENS)


@functools.cache
def continuations_trace(home: Path) -> StoredTrace:
    """Return the model's continuations of beginnings of facts, sums and stories, all of one length."""
    prompts = home / "beginnings.jsonl"
    if not prompts.exists():
        prompts.write_text("".join(beginnings(home / MODEL)), encoding="utf-8")
    return _run_trace(home, "continued", prompts=prompts, max_new_tokens=NEW_TOKENS)


def beginnings(model: Path) -> Iterator[str]:
    """Yield lines of JSON: first tokens of new text about the world, `PER_KIND` each of facts, sums and stories."""
    settings, tokenizer = lab.read_settings(model), jt.load(str(model)).tokenizer
    assert tokenizer is not None
    for kind, world in _worlds(settings).items():
        seen: set[str] = set()
        for document in documents(World(world), seed=3):
            text = tokenizer.decode(np.array(tokenizer.encode(document, chat=False)[: BEGINNING + 1]))
            if len(seen) < PER_KIND and len(tokenizer.encode(text, chat=False)) == BEGINNING + 1 and text not in seen:
                seen.add(text)
                yield pd.Series({"id": f"{kind}-{len(seen)}", "prompt": text, "kind": kind}).to_json() + "\n"


def answer_tables(home: Path) -> dict[str, Tables]:
    """Return the tables of confidence in two senses, and of dynamics by the number of times a fact is stated."""
    trace = answers_trace(home)
    prompts = [row.prompt for row in trace.rows]
    facts = {home.name: fact_answers(home)}
    labels = write_known_labels([home], home / "known.jsonl")
    by_person, by_prompt = (
        ConfidenceConfig.model_validate({"group": group, "resamples": RESAMPLES}) for group in ("name", None)
    )
    steps = DynamicsConfig.model_validate({"resamples": RESAMPLES})
    facts_stated = {i: p.meta["stated"] for i, p in enumerate(prompts) if p.meta["kind"] == "fact"}
    by_count = {
        f"stated {count}": trace.filter(prompts=[i for i, stated in facts_stated.items() if stated == count])
        for count in sorted({*facts_stated.values()})
    }
    return {
        "known": _study_tables(home, "known", lambda: train(facts, labels, by_person)[1]),
        "known-by-prompt": _study_tables(home, "known-by-prompt", lambda: train(facts, labels, by_prompt)[1]),
        "right": _study_tables(home, "right", lambda: train(facts, None, by_person)[1]),
        "dynamics": _study_tables(home, "dynamics", lambda: dynamics(by_count, steps)),
    }


def fact_answers(home: Path) -> StoredTrace:
    """Return the answers to questions about facts."""
    trace = answers_trace(home)
    return trace.filter(prompts=[i for i, row in enumerate(trace.rows) if "stated" in row.prompt.meta])


def write_known_labels(homes: Sequence[Path], file: Path) -> Path:
    """Write labels of answers: wrong for facts never stated, right for facts stated `WELL_KNOWN` times or more."""
    write_labels([known_label(row) for home in homes for row in fact_answers(home).rows], file)
    return file


def known_label(row: Row) -> Label:
    stated = row.prompt.meta["stated"]
    grade = Grade.CORRECT if stated >= WELL_KNOWN else Grade.UNGRADED if stated else Grade.INCORRECT
    return Label(prompt=row.prompt.id, completion=digest(row.text), grade=grade, by=f"stated {stated} times")


def layer_tables(home: Path) -> dict[str, Tables]:
    """Return the tables of kinds of text by profiles, of expanding layers, and of ablated layers."""
    beginnings = continuations_trace(home)
    kinds = LensConfig.model_validate({"by": "kind", "steps": NEW_TOKENS, "neighbours": (NEIGHBOURS,)})
    return {
        "kinds": _study_tables(home, "kinds", lambda: lens({"continued": beginnings}, kinds)),
        "expansion": _study_tables(home, "expansion", lambda: _expansion(home)),
        "interventions": _study_tables(home, "interventions", lambda: _interventions(home)),
    }


def joint_tables(homes: Sequence[Path], out: Path) -> dict[str, Tables]:
    """Return the tables of one confidence model for all, and of families told apart on held-out models."""
    facts = {home.name: fact_answers(home) for home in homes}
    people = ConfidenceConfig.model_validate({"group": "name", "resamples": RESAMPLES})
    traces = {home.name: continuations_trace(home) for home in homes}
    config = LensConfig.model_validate(
        {"by": "family", "steps": NEW_TOKENS, "neighbours": (NEIGHBOURS,), "zero_padding": True}
    )
    return {
        "known": _study_tables(
            out, "known", lambda: train(facts, write_known_labels(homes, out / "known.jsonl"), people)[1]
        ),
        "families": _study_tables(out, "families", lambda: lens(traces, config)),
    }


def _worlds(settings: WorldSettings) -> dict[str, WorldSettings]:
    """Return worlds of the same people, each with text of one kind."""
    silent = tuple(group.model_copy(update={"stated": (0,)}) for group in settings.classes)
    no_text = {"strangers": 0, "sums": 0, "stories": 0, "meetings": 0.0, "passing_sums": 0.0}
    kinds = {
        "fact": {},
        "sum": {"classes": silent, "sums": settings.sums},
        "story": {"classes": silent, "stories": 500},
    }
    return {kind: settings.model_copy(update=no_text | fields) for kind, fields in kinds.items()}


def _expansion(home: Path) -> Result:
    model = jt.load(str(home / MODEL))
    beginnings = continuations_trace(home)
    encoded = [(row.prompt, row.prompt_tokens) for row in beginnings.rows]
    config = ExpansionConfig.model_validate({})
    return expansion({home.name: measure_expansions(model, encoded, config.mass)}, config)


def _interventions(home: Path) -> Result:
    model = jt.load(str(home / MODEL))
    known = [prompt for prompt in lab_choices.load(home / MODEL, None) if prompt.meta["stated"] >= WELL_KNOWN]
    config = InterventionsConfig.model_validate(
        {"options": "choice", "counts": (1, 2) if model.config.num_layers > 2 else (1,)}
    )
    questions = choice_questions(model, known, config.options)
    return interventions({home.name: measure_interventions(model, questions, config)}, config)


def _run_trace(home: Path, name: str, **settings: Any) -> StoredTrace:
    out = home / "traces" / name
    config = run_config(model=str(home / MODEL), out=str(out), probes=PROBES, batch_size=32, **settings)
    prepare(config, resume=True).write()
    return open_trace(out)


def _study_tables(home: Path, name: str, study: Callable[[], Result]) -> Tables:
    """Return the tables of a study, read from disk if they exist."""
    out = home / "studies" / name
    if not (out / "study.html").exists():
        write_study(dataclasses.replace(study(), pictures={}), out)
    return {path.stem: pd.read_csv(path) for path in sorted((out / "tables").glob("*.csv"))}
