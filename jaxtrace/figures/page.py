"""The report: a trace as one self-contained HTML page (no network, no other files)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from jaxtrace.figures.columns import rounded, token_columns
from jaxtrace.figures.html import embedded_png, template
from jaxtrace.figures.plots import figures
from jaxtrace.figures.summary import TraceColumn, group_tables, summary, trace_columns
from jaxtrace.figures.theme import DARK, LIGHT
from jaxtrace.files import write_atomically
from jaxtrace.schema import token_column_metrics
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

CAPTIONS = {
    "entropy_steps": "Uncertainty of the next token by step, over the prompts that reach the step.",
    "attention_map": "Breadth of each layer's attention at each step; right: divided by ln(visible keys).",
    "layer_profile": "Breadth of attention by layer; dispersion and divergence of its heads.",
    "lens_profile": "Prediction of each layer: entropy, varentropy, divergence from the last layer's prediction.",
    "router_profile": "Choice of experts by layer: entropy of the router over all experts, mass of the chosen ones.",
}
SHORT = 40  # characters of a value that stands beside the prompt's name


def write_report(trace: Trace, path: str | Path, confidence: Sequence[AnswerConfidence] | None = None) -> Path:
    """Write the trace as one self-contained HTML page.

    The page holds the totals, the figures, and every prompt with its tokens coloured by a metric; pointing at a
    token shows its other metrics. All text from the model or the data is escaped, and the page's policy allows only
    its own script.

    Args:
      trace: trace to show; any metric group may be missing.
      path: HTML file to write or replace; its directory is created.
      confidence: confidence in each row's answer, which colours the text at first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(trace, confidence).encode(errors="replace"))
    return path


def render(trace: Trace, confidence: Sequence[AnswerConfidence] | None = None) -> str:
    """Return the page of `write_report` as a string."""
    script = template("script.html.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    model, mode = trace.info.get("model"), trace.info.get("mode", "")
    columns = trace_columns(trace, confidence)
    scales = _scales(columns)
    confidences = confidence or [None] * len(trace.rows)
    return template("page.html.jinja").render(
        title=model if isinstance(model, str) else "Trace",
        mode=mode,
        settings=[(key, value) for key, value in _flat(trace.info) if key not in ("model", "mode")],
        summary=summary(trace),
        figures=_figures(trace),
        groups=group_tables(trace),
        prompts=[
            _prompt(row, number, mode, of_row)
            for number, (row, of_row) in enumerate(zip(trace.rows, confidences, strict=True), 1)
        ],
        scales=scales,
        data={
            "columns": [
                {"name": name, "label": column.label, "unit": metric.unit, "names": metric.names}
                for name, column, metric in ((name, columns[name], token_column_metrics()[name]) for name in columns)
            ],
            "scales": scales,
            "rows": [
                _row(row, list(columns), mode, trace.traced_layers, of_row)
                for row, of_row in zip(trace.rows, confidences, strict=True)
            ],
        },
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    )


def _flat(info: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in info.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _figures(trace: Trace) -> list[dict[str, str]]:
    ds = trace.to_xarray()
    light, dark = (
        {name: embedded_png(figure) for name, figure in figures(ds, theme).items()} for theme in (LIGHT, DARK)
    )
    return [{"caption": CAPTIONS[name], "light": light[name], "dark": dark[name]} for name in light]


def _prompt(row: Row, number: int, mode: str, confidence: AnswerConfidence | None) -> dict[str, Any]:
    prompt, meta = row.prompt, [(key, _text(value)) for key, value in row.prompt.meta.items()]
    if confidence is not None and np.isfinite(confidence.answer):
        meta.insert(0, ("confidence", f"{confidence.answer:.2f}"))
    asked = prompt.text if prompt.text is not None else "".join(row.prompt_pieces)
    return {
        "id": prompt.id or f"prompt {number}",
        "asked": None if mode == "score" else asked or " ".join(map(str, row.prompt_tokens)),
        "text": row.text,
        "stop": row.stop or "unfinished",
        "steps": row.length - row.prompt_steps,
        "short": [(key, value) for key, value in meta if len(value) <= SHORT],
        "long": [(key, value) for key, value in meta if len(value) > SHORT],
    }


def _text(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _scales(columns: dict[str, TraceColumn]) -> list[dict[str, Any]]:
    """Return the columns to colour by, each with the range of its colours: the 1st to the 99th percentile."""
    scales = []
    for name, column in columns.items():
        metric = token_column_metrics()[name]
        if metric.scale is None:
            continue
        low, high = rounded(np.quantile(column.values, [0.01, 0.99]), 3)
        scale = {"name": name, "label": column.label, "low": low, "high": high}
        scales.append(scale | ({"names": metric.names} if metric.scale == "categorical" else {}))
    return scales


def _row(
    row: Row, names: list[str], mode: str, layers: Sequence[int], confidence: AnswerConfidence | None
) -> dict[str, Any]:
    """Return arrays over the steps; `lead` is the text before the first scored token, [] for a generated row."""
    columns, tokens = token_columns(row, layers, confidence), row.metrics["token"]
    lead = len(row.prompt_pieces) - int((tokens >= 0).sum()) if mode == "score" else 0
    lens = row.metrics.get("lens_entropy", np.empty((0, 0)))
    return {
        "lead": list(row.prompt_pieces[: max(lead, 0)]),
        "pieces": list(row.pieces),
        "tokens": tokens.tolist(),
        "values": [rounded(columns[name]) if name in columns else None for name in names],
        "lens": [rounded(step, 3) if np.isfinite(step).any() else None for step in lens],
    }
