"""A trace in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from jaxtrace.figures.columns import COLUMNS, token_columns
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.trace import Trace

GROUP_KEYS = ("seen", "category")
SEEN_ORDER = ("often", "rare", "never")


def summary_table(trace: Trace) -> Table:
    """The summary for a terminal: totals, and the mean of each token metric that the trace holds."""
    table = Table(
        title=escape(f"Trace of {trace.info['model']}") if "model" in trace.info else "Trace",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    for label, value in summary(trace):
        table.add_row(escape(label), escape(value))
    return table


def summary(trace: Trace) -> list[tuple[str, str]]:
    """Labels and values with units: prompts, tokens, how they stopped, token metrics over all steps."""
    lines = [
        ("prompts", str(len(trace.rows))),
        ("tokens", f"{sum(row.length - row.prompt_steps for row in trace.rows):,}"),
    ]
    stops = Counter(row.stop or "unfinished" for row in trace.rows)
    if stops:
        lines.append(("stopped by", ", ".join(f"{name} {count}" for name, count in stops.most_common())))
    values = gather(trace)
    if "entropy" in values:
        mean, median, high = values["entropy"].mean(), *np.quantile(values["entropy"], [0.5, 0.9])
        lines.append(("entropy: mean · median · P90", f"{mean:.3f} · {median:.3f} · {high:.3f} nats"))
    for name, column in COLUMNS.items():
        if name in values and column.names:
            shares = np.bincount(values[name].astype(int), minlength=len(column.names)) / len(values[name])
            found = [f"{one} {share:.0%}" for one, share in zip(column.names, shares, strict=True) if share]
            lines.append((column.label, ", ".join(found)))
        elif name in values and name not in ("entropy", "logprob"):
            text = f"{values[name].mean():.3f} {column.unit}".rstrip()
            if name == "prediction_depth":
                text = f"{values[name].mean():.1f} of {trace.info['layers']} layers"
            lines.append((column.label, text))
    return lines


def gather(trace: Trace, confidence: Sequence[AnswerConfidence] | None = None) -> dict[str, np.ndarray]:
    """Each token column over all steps of all prompts: finite values only, and no empty columns."""
    parts: dict[str, list[np.ndarray]] = {}
    for number, row in enumerate(trace.rows):
        sure = confidence[number] if confidence else None
        for name, values in token_columns(row, trace.traced_layers, sure).items():
            own = values[row.prompt_steps :]
            parts.setdefault(name, []).append(own[np.isfinite(own)])
    joined = {name: np.concatenate(parts[name]) for name in COLUMNS if name in parts}
    return {name: values for name, values in joined.items() if values.size}


def group_tables(trace: Trace) -> list[dict[str, Any]]:
    """Mean entropy of the first step and over the steps, for the groups that `meta` makes of the prompts.

    Returns:
      One table per key of `GROUP_KEYS` that any prompt has: {"key", "lines"}, each line holding "name",
      "prompts", "first" and "mean" (over prompts, of each prompt's mean), in nats.
    """
    tables = []
    for key in GROUP_KEYS:
        groups: dict[str, list[np.ndarray]] = {}
        for row in trace.rows:
            entropy = row.metrics.get("entropy", np.empty(0))[row.prompt_steps :]
            if key in row.prompt.meta and np.isfinite(entropy).any():
                groups.setdefault(str(row.prompt.meta[key]), []).append(entropy)
        if groups:
            names = [name for name in SEEN_ORDER if name in groups]
            names += sorted(groups.keys() - set(names))
            tables.append({"key": key, "lines": [_line(name, groups[name]) for name in names]})
    return tables


def _line(name: str, entropies: list[np.ndarray]) -> dict[str, Any]:
    first = np.mean([entropy[0] for entropy in entropies])
    mean = np.mean([np.nanmean(entropy) for entropy in entropies])
    return {"name": name, "prompts": len(entropies), "first": first, "mean": mean}
