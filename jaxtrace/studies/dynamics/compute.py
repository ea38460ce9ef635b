"""`study dynamics`: how uncertainty moves while a model answers, after arXiv 2604.03589."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jaxtrace.documents import read_text
from jaxtrace.errors import StudyError
from jaxtrace.memory import format_bytes
from jaxtrace.run import load_traced
from jaxtrace.statistics.intervals import FEW
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.published import with_prompt_positions
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies._shared.traces import by_model, start_mode, study_traces
from jaxtrace.studies.dynamics.answer_features import NONE_TRACED, auroc_table
from jaxtrace.studies.dynamics.class_tables import class_tables
from jaxtrace.studies.dynamics.correlations import correlations
from jaxtrace.studies.dynamics.figures import correlations_figure, drift_figure, layers_figure, positions_figure
from jaxtrace.studies.dynamics.long_format import write_long
from jaxtrace.studies.dynamics.multiple_choice import choice_table, question_table, scored_choices, unscored_notes
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.dynamics.tables import early_late_tables, paper_tables
from jaxtrace.studies.dynamics.token_tables import HIDDEN, OUTPUT, TokenTables, token_tables
from jaxtrace.tasks import multiple_choice
from jaxtrace.traces.layers import layers_note
from jaxtrace.traces.trace import Trace

QUESTION = "How do output entropy, attention and the residual stream move while a model answers, and what is its class?"
CORRELATED = (*OUTPUT, "attention_entropy", "hdi", *HIDDEN)
NOTES = (
    "The last layer is measured before the final norm; hidden_states[L] of transformers, after it, is not recorded.",
    "GEN step 1 is the distribution that draws the first token: the prompt's last position, unless that was fed twice.",
    "Attention entropy grows with ln(keys) as a text grows: read its residual in the table length_control first. Its "
    "share of ln(keys) is no clean control: it can rise or fall along a text where the residual does neither.",
)


def run_study(config: DynamicsConfig, out: Path, progress: Progress) -> Result:
    """Open or make the traces, score the choices, write the long tables, and return the study's result."""
    _read_choices(config)  # an error of theirs ends the study before a model runs
    opened = study_traces(config.model_copy(update={"run": with_prompt_positions(config.run)}), out, progress)
    traces = by_model(opened)
    result = dynamics(traces, config, score_choices(traces, config, progress))
    files = []
    for label, trace in traces.items() if config.long is not None else ():
        files.append(out / "long" / f"{label.strip('/').replace('/', '--')}.{config.long}")
        write_long(label, trace, files[-1], hdi=config.hdi, bytes_per_element=config.kv_bytes)
    return replace(result, files=tuple(files))


def score_choices(
    traces: Mapping[str, Trace], config: DynamicsConfig, progress: Progress = SILENT
) -> dict[str, pd.DataFrame]:
    """Return MC scores of each model for the questions that its trace holds, by label; {} without choices.

    A model whose trace holds none of the questions has no entry.

    Raises:
      JaxtraceError: the choices or the primer cannot be read, no trace holds a question, or a model cannot be loaded or
        scored.
    """
    if config.choices is None:
        return {}
    questions, primer = _read_choices(config)
    scores = {}
    for label, trace in traces.items():
        texts = {(row.prompt.text or "").strip() for row in trace.rows}
        if asked := [question for question in questions if question.question in texts]:
            model = load_traced(trace)
            with progress.counter(f"choices of {label}", "answers") as on_answers:
                score = functools.partial(scored_choices, primer=primer, template=config.template)
                scores[label] = score(model, asked, bos=start_mode(trace), on_answers=on_answers)
    if not scores:
        raise StudyError(
            f"{config.choices}: none of the traced prompts is among the questions that it holds; trace some of them, "
            "or drop --choices"
        )
    return scores


def _read_choices(config: DynamicsConfig) -> tuple[list[multiple_choice.MultipleChoice], str]:
    """Return the questions with choices and the text before them."""
    questions = [] if config.choices is None else multiple_choice.load(config.choices)
    primer = config.primer and read_text(config.primer, StudyError, "name a UTF-8 text file as the primer")
    return questions, primer or ""


def dynamics(
    traces: Mapping[str, Trace], config: DynamicsConfig, choices: Mapping[str, pd.DataFrame] | None = None
) -> Result:
    """Compute the paper's seven tables, classes, length control and correlations of some traces.

    Args:
      traces: generated traces with output, attention and hidden probes (`hdi` "jsd": dispersion too), by label.
      choices: MC scores by label, from `score_choices`; None or {} gives no table of AUROC.

    Raises:
      StudyError: a trace lacks a probe or holds given text, no prompt is long enough, or MC1 has a single class in
        every model.
    """
    flat = token_tables(traces, hdi=config.hdi, bytes_per_element=config.kv_bytes)
    short = flat.prompts[flat.prompts["steps"] < config.least_steps]
    if len(short) == len(flat.prompts):
        raise StudyError(
            f"no prompt has {config.least_steps} steps or more, for early and late; raise max_new_tokens, "
            "or lower least_steps"
        )
    tables = paper_tables(flat, config) | early_late_tables(flat, config)
    tables = dict(sorted(tables.items(), key=lambda named: (not named[0].startswith("table"), named[0])))
    tables |= class_tables(flat, config) | {"correlations": _correlations(flat, config)}
    notes = [*NOTES, *_notes(flat, short, config), *_recurrent_notes(traces)]
    if choices:
        of_features, absent = auroc_table(flat, choices, config)
        tables |= {"choices": choice_table(choices, **config.resampling), "choices_auroc": of_features}
        tables["choices_questions"] = question_table(choices)
        notes += [*unscored_notes(choices), *absent]
        notes += [
            f"{label}: {NONE_TRACED}: it is absent from choices and choices_auroc."
            for label in traces
            if label not in choices
        ]
    return Result("dynamics", QUESTION, tables, _pictures(flat, tables), tuple(notes))


def _correlations(flat: TokenTables, config: DynamicsConfig) -> Table:
    frames = []
    for model in flat.models:
        tokens = flat.of_model(model).tokens
        correlate = functools.partial(
            correlations, groups=tokens["group"].to_numpy(), method=config.correlation, **config.resampling
        )
        plain = correlate(tokens[[*CORRELATED, "keys"]])
        with_ln_keys = tokens[list(CORRELATED)].assign(ln_keys=np.log(tokens["keys"]))
        fixed = correlate(with_ln_keys, fixed="ln_keys").set_index(["x", "y"])
        partial = fixed[["r", "r_low", "r_high", "r_few"]].rename(columns=lambda name: f"r_given_keys{name[1:]}")
        frames.append(plain.join(partial, on=["x", "y"]).assign(model=model))
    frame = pd.concat(frames, ignore_index=True)
    return Table(
        frame[["model", *(name for name in frame.columns if name != "model")]],
        f"{config.correlation.capitalize()} correlations over tokens, with 95 % intervals over prompts (n); "
        "r_given_keys holds ln(keys) fixed. keys, the tokens in the cache, are proportional to its memory.",
    )


def _pictures(flat: TokenTables, tables: Mapping[str, Table]) -> dict[str, Picture]:
    few = bool(flat.prompts.groupby("model")["group"].nunique().min() < FEW)
    drifts, pairs = tables["length_control"], tables["correlations"]
    return {
        "entropy_positions": Picture(
            functools.partial(positions_figure, flat),
            "Output entropy along a text, from its first generated token (0) to its last (1): mean over prompts, and "
            "the band that holds 80 % of them.",
            few,
        ),
        "length_control": Picture(
            functools.partial(drift_figure, drifts.frame),
            "Drift (late − early) of attention entropy with 95 % intervals over prompts: the residual of its "
            "regression on ln(keys), and below it measures that are not free of length; attention_entropy_normalized "
            "is a share.",
            drifts.few,
        ),
        "layer_profiles": Picture(
            functools.partial(layers_figure, flat),
            "Attention entropy and head dispersion by layer: mean over prompts, and the band that holds 80 % of them.",
            few,
        ),
        "correlations": Picture(
            functools.partial(correlations_figure, pairs.frame),
            "Correlations of token features: red positive, blue negative; a dot if the 95 % interval contains 0.",
            pairs.few,
        ),
    }


def _notes(flat: TokenTables, short: pd.DataFrame, config: DynamicsConfig) -> list[str]:
    notes = [
        f"{model}: {count} prompts without a step of finite logits are excluded."
        for model, count in flat.excluded.items()
    ]
    notes += [
        layers_note(f"{model}: attention entropies, sink_mass, hdi", text)
        for model, text in flat.attention_layers.items()
        if text
    ]
    if len(short):
        names = ", ".join(f"{model}: {name}" for model, name in zip(short["model"], short["name"], strict=True))
        notes.append(f"Excluded from early, late and class (fewer than {config.least_steps} steps): {names}.")
    if flat.tokens["kv_mib"].isna().any():
        notes.append("KV memory is NaN for a trace without the shape of its cache; trace it again to get it.")
    return notes


def _recurrent_notes(traces: Mapping[str, Trace]) -> list[str]:
    """Return the bytes of recurrent states, which the KV memory excludes."""
    sizes = {label: trace.info.get("cache", {}).get("recurrent") for label, trace in traces.items()}
    return [
        f"{label}: recurrent states take {format_bytes(size)} a row beside the KV memory, for any number of tokens."
        for label, size in sizes.items()
        if size
    ]
