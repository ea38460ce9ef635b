"""Trace-level dynamics, the analysis of arXiv 2604.03589: how uncertainty moves while a model answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError
from jaxtrace.model import load
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies._shared.traces import traces_of
from jaxtrace.studies.dynamics.answer_features import auroc_table
from jaxtrace.studies.dynamics.correlations import correlations
from jaxtrace.studies.dynamics.figures import correlation_matrices, entropy_positions, layer_profiles
from jaxtrace.studies.dynamics.labels import class_tables
from jaxtrace.studies.dynamics.long_format import write_long
from jaxtrace.studies.dynamics.multiple_choice import choice_table, scored_choices, unscored
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.dynamics.tables import early_late_tables, paper_tables
from jaxtrace.studies.dynamics.token_features import HIDDEN, OUTPUT, Flat, flatten
from jaxtrace.tasks import multiple_choice
from jaxtrace.traces.trace import Trace

QUESTION = (
    "How do output entropy, attention and the residual stream move while a model answers, and of what class is it?"
)
CORRELATED = (*OUTPUT, "attention_entropy", "hdi", *HIDDEN)
LN_KEYS = "ln_keys"
NOTES = (
    "The last layer is measured before the final norm; hidden_states[L] of transformers, after it, is not recorded.",
    "GEN step 1 is the distribution that draws the first token: the prompt's last position, unless that was fed twice.",
    "Attention entropy grows with ln(keys) as a text grows: read its drift beside the table length_control.",
)


def run_study(config: DynamicsConfig, out: Path, progress: Progress = SILENT) -> Result:
    """Open or make the traces, score the choices, write the long tables, and return the study's result.

    Runs that feed the last prompt token twice also record the prompt's positions, unless their settings say otherwise:
    the PROMPT step of the long table is the first of the two.

    Raises:
      JaxtraceError: a setting, a trace, a prompt or a model is unusable.
    """
    if config.run.get("compat_duplicate_last_prompt_token"):
        config = config.model_copy(update={"run": {"prompt_positions": True} | config.run})
    traces = traces_of(config, out, progress)
    result = dynamics(traces, config, choices_of(traces, config))
    files = []
    for label, trace in traces.items() if config.long is not None else ():
        files.append(out / "long" / f"{label.strip('/').replace('/', '--')}.{config.long}")
        write_long(label, trace, files[-1], hdi=config.hdi, bytes_per_element=config.kv_bytes)
    return replace(result, files=tuple(files))


def choices_of(traces: Mapping[str, Trace], config: DynamicsConfig) -> dict[str, pd.DataFrame]:
    """MC scores of the traces' models by label, as `multiple_choice.scored_choices` gives them; {} without choices.

    Raises:
      JaxtraceError: the choices or the primer cannot be read, or a model cannot be loaded or scored.
    """
    if config.choices is None:
        return {}
    questions = multiple_choice.load(config.choices)
    primer = "" if config.primer is None else _text(config.primer)
    scored = functools.partial(scored_choices, questions=questions, primer=primer, template=config.template)
    return {label: scored(load(trace.info["model"])) for label, trace in traces.items()}


def dynamics(
    traces: Mapping[str, Trace], config: DynamicsConfig, choices: Mapping[str, pd.DataFrame] | None = None
) -> Result:
    """The paper's seven tables, classes, length control and correlations of some traces.

    Args:
      traces: by label; generated, with output, attention and hidden probes (`hdi` "jsd": dispersion too).
      config: thresholds and kinds.
      choices: MC scores by label, from `choices_of`; without them there is no table of AUROC.

    Raises:
      StudyError: a trace lacks a probe or is of given text; no prompt is long enough; MC1 is of one class only in
        every model.
    """
    flat = flatten(traces, hdi=config.hdi, bytes_per_element=config.kv_bytes)
    short = flat.prompts[flat.prompts["steps"] < config.least_steps]
    if len(short) == len(flat.prompts):
        raise StudyError(
            f"no prompt has {config.least_steps} steps or more, for early and late; raise max_new_tokens, "
            "or lower least_steps"
        )
    drawn = {"seed": config.seed, "resamples": config.resamples}
    ends = {"share": config.share, "least_steps": config.least_steps, **drawn}
    by_pair = _correlations(flat, config)
    tables = paper_tables(flat, hdi=config.hdi, **drawn) | early_late_tables(flat, **ends)
    tables = dict(sorted(tables.items(), key=lambda named: (not named[0].startswith("table"), named[0])))
    tables |= class_tables(flat, tau=config.tau, low=config.low, wide=config.wide, **ends)
    tables["correlations"] = by_pair
    notes = [*NOTES, *_notes(flat, short, config)]
    if choices:
        told, left_out = auroc_table(flat, choices, **ends)
        tables |= {"choices": choice_table(choices, **drawn), "choices_auroc": told}
        notes += [*unscored(choices), *left_out]
    return Result("dynamics", QUESTION, tables, _pictures(flat, by_pair.frame), tuple(notes))


def _correlations(flat: Flat, config: DynamicsConfig) -> Table:
    frames = []
    for model in flat.models:
        tokens = flat.of(model).tokens
        settings = {"method": config.correlation, "seed": config.seed, "resamples": config.resamples}
        groups = tokens["group"].to_numpy()
        plain = correlations(tokens[[*CORRELATED, "keys"]], groups, **settings)
        with_keys = tokens[list(CORRELATED)].assign(**{LN_KEYS: np.log(tokens["keys"])})
        given = correlations(with_keys, groups, given=LN_KEYS, **settings).set_index(["x", "y"])
        columns = ["r_given_keys", "r_given_keys_low", "r_given_keys_high"]
        partial = given[["r", "r_low", "r_high"]].set_axis(columns, axis=1)
        frames.append(plain.join(partial, on=["x", "y"]).assign(model=model))
    frame = pd.concat(frames, ignore_index=True)
    return Table(
        frame[["model", *(name for name in frame.columns if name != "model")]],
        f"{config.correlation.capitalize()} correlations over tokens, with 95 % intervals over prompts (n); "
        "r_given_keys: with ln(keys) held fixed. keys, the tokens in the cache, are in proportion to its memory.",
    )


def _pictures(flat: Flat, by_pair: pd.DataFrame) -> dict[str, Picture]:
    return {
        "entropy_positions": Picture(
            functools.partial(entropy_positions, flat),
            "Output entropy along a text, from its first generated token (0) to its last (1): mean over prompts, and "
            "the band that holds 80 % of them.",
        ),
        "layer_profiles": Picture(
            functools.partial(layer_profiles, flat),
            "Attention entropy and head dispersion by layer: mean over prompts, and the band that holds 80 % of them.",
        ),
        "correlations": Picture(
            functools.partial(correlation_matrices, by_pair),
            "Correlations of tokens: red positive, blue negative; a dot where the 95 % interval over prompts holds 0.",
        ),
    }


def _notes(flat: Flat, short: pd.DataFrame, config: DynamicsConfig) -> list[str]:
    notes = []
    if len(short):
        names = ", ".join(f"{model}: {name}" for model, name in zip(short["model"], short["name"], strict=True))
        notes.append(f"Without early, late and class, for they have fewer than {config.least_steps} steps: {names}.")
    if flat.tokens["kv_mib"].isna().any():
        notes.append("A trace does not say the shape of its cache: its KV memory is NaN; trace it again to have it.")
    return notes


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{file}: the primer cannot be read ({error}); name a UTF-8 text file") from None
