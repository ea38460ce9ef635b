"""Summary of a trace: totals, mean token columns, and tables by groups of prompts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from jaxtrace.figures.columns import layer_counts, token_columns
from jaxtrace.figures.tables.parts import plain
from jaxtrace.schema import token_column_metrics
from jaxtrace.statistics.means import finite_mean
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.layers import layers_text
from jaxtrace.traces.trace import Trace

GROUP_KEYS = ("seen", "category")
SEEN_ORDER = ("often", "rare", "never")


def summary_table(trace: Trace) -> Table:
    """Return the summary for a terminal: totals, and the mean of each token column."""
    table = Table(
        title=plain(f"Trace of {trace.info['model']}" if "model" in trace.info else "Trace"), show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    for label, value in summary(trace):
        table.add_row(plain(label), plain(value))
    return table


def summary(trace: Trace) -> list[tuple[str, str]]:
    """Return labels and values with units: prompts, tokens, stop reasons, token columns over all steps."""
    lines = [
        ("prompts", str(len(trace.rows))),
        ("tokens", f"{sum(row.length - row.prompt_steps for row in trace.rows):,}"),
    ]
    stops = Counter(row.stop or "unfinished" for row in trace.rows)
    if stops:
        lines.append(("stopped by", ", ".join(f"{name} {count}" for name, count in stops.most_common())))
    for part, layers in trace.info.get("layers_without", {}).items():
        lines.append((f"layers without {part}", f"{len(layers)} of {trace.info['layers']}"))
    columns = trace_columns(trace)
    if "entropy" in columns:
        entropy = columns["entropy"].values
        mean, median, high = entropy.mean(), *np.quantile(entropy, [0.5, 0.9])
        lines.append(("entropy: mean · median · P90", f"{mean:.3f} · {median:.3f} · {high:.3f} nats"))
    metrics = token_column_metrics()
    for name, column in columns.items():
        metric, values = metrics[name], column.values
        if metric.names:
            shares = np.bincount(values.astype(int), minlength=len(metric.names)) / len(values)
            text = ", ".join(f"{one} {share:.0%}" for one, share in zip(metric.names, shares, strict=True) if share)
        elif name == "prediction_depth":
            text = f"{values.mean():.1f} of {trace.info['layers']} layers"
        else:
            text = f"{values.mean():.3f} {metric.unit}".rstrip()
        if name not in ("entropy", "logprob"):  # the line above, and surprisal, say the same
            lines.append((column.label, text))
    return lines


@dataclass(frozen=True)
class TraceColumn:
    """Token column over the drawn steps of all prompts.

    Attributes:
      label: name for readers; it says over how many layers the column is, unless these are all.
      values: finite values, at least one.
    """

    label: str
    values: np.ndarray


def trace_columns(trace: Trace, confidences: Sequence[AnswerConfidence] | None = None) -> dict[str, TraceColumn]:
    """Return each token column that has a finite value, by name."""
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    counts: dict[str, set] = defaultdict(set)
    for row, confidence in zip(trace.rows, confidences or [None] * len(trace.rows), strict=True):
        columns = token_columns(row, trace.traced_layers, confidence)
        for name, values in columns.items():
            values = values[row.prompt_steps :]
            parts[name].append(values[np.isfinite(values)])
        for name, count in layer_counts(row, columns).items():
            counts[name].add(count)
    joined = {}
    for name, metric in token_column_metrics().items():
        if name in parts and (values := np.concatenate(parts[name])).size:
            layers = layers_text(counts[name], trace.num_layers)
            joined[name] = TraceColumn(metric.column_label + f" ({layers})" * bool(layers), values)
    return joined


def group_tables(trace: Trace) -> list[dict[str, Any]]:
    """Return the mean entropy of the first step and over the steps, by groups of prompts.

    Returns:
      One table per key of `GROUP_KEYS` that any prompt's `meta` has: {"key", "lines"}. Each line holds "name",
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
            tables.append({"key": key, "lines": [_group_line(name, groups[name]) for name in names]})
    return tables


def _group_line(name: str, entropies: list[np.ndarray]) -> dict[str, Any]:
    first = finite_mean([entropy[0] for entropy in entropies])
    mean = finite_mean([finite_mean(entropy) for entropy in entropies])
    return {"name": name, "prompts": len(entropies), "first": first, "mean": mean}
