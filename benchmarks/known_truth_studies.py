"""The studies, asked of one model of a world whose truth is known: traces, and results on the disk."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel

import jaxtrace as jt
from jaxtrace.confidence.study import ConfidenceConfig, train
from jaxtrace.lab.documents import documents
from jaxtrace.lab.quiz import ANSWER_TOKENS, WELL_KNOWN
from jaxtrace.lab.settings import WorldSettings
from jaxtrace.lab.world import World
from jaxtrace.report.study import write_study
from jaxtrace.run import prepare, run_config
from jaxtrace.store import open_trace
from jaxtrace.store.reader import StoredTrace
from jaxtrace.studies.dynamics import DynamicsConfig, dynamics
from jaxtrace.studies.expansion import ExpansionConfig, expansion, measure_expansions
from jaxtrace.studies.interventions import InterventionsConfig, interventions, measure_interventions
from jaxtrace.studies.lens import LensConfig, lens
from jaxtrace.studies.result import Result
from jaxtrace.studies.single_token_choices import questions_of
from jaxtrace.tasks import lab, lab_choices

Tables = dict[str, pd.DataFrame]
T = TypeVar("T", bound=BaseModel)
PROBES = ("output", "attention", "dispersion", "lens", "hidden")
MODEL = "model"  # the checkpoint in a model's directory, which has its traces and studies beside it
BEGINNING, DRAWN, OF_A_KIND = 12, 4, 60  # tokens of a beginning, and drawn after it; prompts of a kind
NEIGHBOURS = 5


def answered(home: Path) -> StoredTrace:
    """The model's greedy answers to all of the task `lab`."""
    return _traced(home, "answers", task="lab", data=str(home / MODEL), max_new_tokens=ANSWER_TOKENS)


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
            text = tokenizer.decode(tokenizer.encode(document, chat=False)[: BEGINNING + 1])
            if len(seen) < OF_A_KIND and len(tokenizer.encode(text, chat=False)) == BEGINNING + 1 and text not in seen:
                seen.add(text)
                yield pd.Series({"id": f"{kind}-{len(seen)}", "prompt": text, "kind": kind}).to_json() + "\n"


def of_answers(home: Path) -> dict[str, Tables]:
    """Confidence in two senses, and dynamics by how often a fact is stated."""
    trace = answered(home)
    rows = list(trace.rows)
    facts = [i for i, row in enumerate(rows) if "stated" in row.prompt.meta]
    of_facts = trace.filter(prompts=facts)
    labels = home / "known.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        stated = {rows[i].prompt.id: rows[i].prompt.meta["stated"] for i in facts}
        kept = ((name, str(count > 0).lower()) for name, count in stated.items() if count == 0 or count >= WELL_KNOWN)
        csv.writer(file).writerows([("prompt", "label"), *kept])
    config = _settings(ConfidenceConfig, group="name")
    by_count = {
        f"stated {count}": trace.filter(
            prompts=[i for i in facts if rows[i].prompt.meta["stated"] == count and not rows[i].prompt.meta["held_out"]]
        )
        for count in sorted({rows[i].prompt.meta["stated"] for i in facts})
    }
    return {
        "known": _studied(home, "known", lambda: train({"answers": of_facts}, labels, config)[1]),
        "right": _studied(home, "right", lambda: train({"answers": of_facts}, None, config)[1]),
        "dynamics": _studied(home, "dynamics", lambda: dynamics(by_count, _settings(DynamicsConfig, resamples=300))),
    }


def of_layers(home: Path) -> dict[str, Tables]:
    """Kinds of text by profiles; layers that expand; layers left out."""
    beginnings = continued(home)
    kinds = _settings(LensConfig, by="kind", steps=DRAWN, neighbours=(NEIGHBOURS,))
    return {
        "kinds": _studied(home, "kinds", lambda: lens({"continued": beginnings}, kinds)),
        "expansion": _studied(home, "expansion", lambda: _expansion(home)),
        "interventions": _studied(home, "interventions", lambda: _interventions(home)),
    }


def of_families(homes: list[Path], out: Path) -> Tables:
    """Families told apart by profiles, on models that were held out."""
    traces = {home.name: continued(home) for home in homes}
    config = _settings(LensConfig, by="family", steps=DRAWN, neighbours=(NEIGHBOURS,), zero_padding=True)
    return _studied(out, "families", lambda: lens(traces, config))


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
