"""Scores of answers by estimators: baselines of a confidence, and features of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxtrace.estimators import estimate, known_estimators
from jaxtrace.estimators.registry import IDENTIFIERS, find_estimators
from jaxtrace.studies.confidence.features import FeatureTables

# Estimators that are a linear function of features made of metrics, such as entropy.mean, and so tell nothing more.
REPEATED = frozenset(
    {
        *("mean_token_entropy", "max_token_entropy", "first_entropy", "mean_varentropy", "max_varentropy"),
        *("perplexity", "surprisal_gap", "mean_surprise_z", "max_surprise_z", "self_certainty", "fisher_rao"),
    }
)
# Length is a control. The probe is fitted to the other answers of a trace: in another trace it is another score.
NEVER_FEATURES = frozenset({"length", "semantic_entropy_probe"})


def feature_estimators() -> tuple[str, ...]:
    """Return the names of estimators that may be features of answers: of one pass or samples, without labels."""
    return tuple(
        each.name
        for each in known_estimators().values()
        if each.passes in ("one", "samples")
        and "labels" not in each.inputs
        and each.name not in REPEATED | NEVER_FEATURES
    )


def label_estimators() -> tuple[str, ...]:
    """Return the names of estimators that learn from labels."""
    return tuple(each.name for each in known_estimators().values() if "labels" in each.inputs)


def estimator_scores(
    tables: FeatureTables, names: Sequence[str] | str = "all", labels: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the scores of answers by estimators that all traces allow, with the sign of each estimator's source.

    Args:
      names: names of estimators, or "all"; `tables` must have been made for them.
      labels: [answers], 1 right, 0 wrong, NaN unknown, for estimators that learn from other prompts of the trace.

    Raises:
      LackingError: a trace lacks what a named estimator needs; the message names the options that record it.
    """
    frames, first = [], 0
    for run in tables.runs:
        rows = slice(first, first + len(run.rows))
        first = rows.stop
        inputs: dict[str, Any] = {} if labels is None else {"labels": labels[rows]}
        frames.append(estimate(run, names, **inputs).drop(columns=[*IDENTIFIERS]))
    return pd.concat(frames, join="inner", ignore_index=True)


def with_estimators(tables: FeatureTables, names: Sequence[str]) -> pd.DataFrame:
    """Return features of answers [answers, features] with the scores of some estimators; raises like the scores."""
    if not names:
        return tables.answer_features
    return pd.concat([tables.answer_features, estimator_scores(tables, names)], axis=1)


def uncertainties(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores of estimators with the sign by which a higher one means less certainty."""
    return pd.DataFrame(
        {
            each.name: scores[each.name] if each.higher_is_uncertain else -scores[each.name]
            for each in find_estimators([*scores.columns])
        }
    )
