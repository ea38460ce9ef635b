"""A trace as one HTML page that needs nothing else: no network, no files beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from jaxtrace.figures.columns import COLUMNS, rounded, token_columns
from jaxtrace.figures.html import in_page, template
from jaxtrace.figures.plots import figures
from jaxtrace.figures.summary import gather, group_tables, summary
from jaxtrace.figures.theme import DARK, LIGHT
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.trace import Row, Trace

CAPTIONS = {
    "entropy_steps": "Uncertainty of the next token along the steps, over the prompts that got that far.",
    "attention_map": "How broadly each layer's heads look at each step; right: divided by ln(visible keys).",
    "layer_profile": "Breadth of attention by layer; how its heads differ in it and in where they look.",
    "lens_profile": "What each layer would predict: entropy, varentropy, distance from the last layer's.",
}
SHORT = 40


def write_report(trace: Trace, path: str | Path, confidence: Sequence[AnswerConfidence] | None = None) -> Path:
    """Writes the trace as one self-contained HTML page.

    It holds the totals, the figures, and every prompt with its tokens coloured by a metric; pointing at a
    token shows the rest. All text from the model or the data is escaped, and the page's policy lets no script
    but its own run.

    Args:
      trace: what to show; any of its metric groups may be missing.
      path: the HTML file to write; its directory is made if need be, and an older file replaced.
      confidence: of every row, what the text is coloured by at first.

    Returns:
      The path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(trace, confidence), encoding="utf-8", errors="replace")
    return path


def render(trace: Trace, confidence: Sequence[AnswerConfidence] | None = None) -> str:
    """The page of `write_report` as a string."""
    script = template("script.html.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    model = trace.info.get("model")
    values = gather(trace, confidence)
    sure = confidence or [None] * len(trace.rows)
    scales = _scales(values)
    return template("page.html.jinja").render(
        title=model if isinstance(model, str) else "Trace",
        mode=trace.info.get("mode", ""),
        settings=[(key, value) for key, value in _flat(trace.info) if key not in ("model", "mode")],
        summary=summary(trace),
        figures=_pictures(trace),
        groups=group_tables(trace),
        prompts=[
            _prompt(row, number, trace.info.get("mode"), of)
            for number, (row, of) in enumerate(zip(trace.rows, sure, strict=True), 1)
        ],
        scales=scales,
        data=_data(trace, list(values), scales, sure),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    )


def _flat(info: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in info.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _words(value)


def _pictures(trace: Trace) -> list[dict[str, str]]:
    ds = trace.to_xarray()
    light, dark = ({name: in_page(figure) for name, figure in figures(ds, theme).items()} for theme in (LIGHT, DARK))
    return [{"caption": CAPTIONS[name], "light": light[name], "dark": dark[name]} for name in light]


def _prompt(row: Row, number: int, mode: str | None, sure: AnswerConfidence | None) -> dict[str, Any]:
    prompt, meta = row.prompt, [(key, _words(value)) for key, value in row.prompt.meta.items()]
    if sure is not None and np.isfinite(sure.answer):
        meta.insert(0, ("confidence", f"{sure.answer:.2f}"))
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


def _words(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _scales(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The metrics to colour by, each with the range of its colours: the 1st to the 99th percentile."""
    scales = []
    for name, values in columns.items():
        if COLUMNS[name].colour:
            low, high = rounded(np.quantile(values, [0.01, 0.99]), 3)
            scales.append({"name": name, "label": COLUMNS[name].label, "low": low, "high": high})
            if COLUMNS[name].names:
                scales[-1]["names"] = COLUMNS[name].names
    return scales


def _data(
    trace: Trace, names: list[str], scales: list[dict[str, Any]], sure: Sequence[AnswerConfidence | None]
) -> dict[str, Any]:
    return {
        "columns": [
            {"name": name, "label": COLUMNS[name].label, "unit": COLUMNS[name].unit, "names": COLUMNS[name].names}
            for name in names
        ],
        "scales": scales,
        "rows": [
            _row(row, names, trace.info.get("mode"), trace.traced_layers, of)
            for row, of in zip(trace.rows, sure, strict=True)
        ],
    }


def _row(
    row: Row, names: list[str], mode: str | None, layers: Sequence[int], sure: AnswerConfidence | None
) -> dict[str, Any]:
    """Arrays along the steps; `lead` is the text before the first token scored, [] for a generated row."""
    columns, tokens = token_columns(row, layers, sure), row.metrics["token"]
    lead = len(row.prompt_pieces) - int((tokens >= 0).sum()) if mode == "score" else 0
    lens = row.metrics.get("lens_entropy", np.empty((0, 0)))
    return {
        "lead": list(row.prompt_pieces[: max(lead, 0)]),
        "pieces": list(row.pieces),
        "tokens": tokens.tolist(),
        "values": [rounded(columns[name]) if name in columns else None for name in names],
        "lens": [rounded(step, 3) for step in lens],
    }
