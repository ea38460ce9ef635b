"""The long table of arXiv 2604.03589: a row per phase, step and layer, with that paper's column names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrace.files import atomic_file
from jaxtrace.studies._shared.csv import write_csv
from jaxtrace.studies._shared.published import duplicated_tokens
from jaxtrace.studies.dynamics.quantities import KVMemory, dispersion, dispersion_metric
from jaxtrace.studies.dynamics.settings import HDIKind
from jaxtrace.studies.dynamics.token_tables import HIDDEN, OUTPUT, cached_tokens, prompt_name
from jaxtrace.traces.requirements import require_metrics
from jaxtrace.traces.trace import Trace


def long_frame(
    label: str, trace: Trace, number: int, *, hdi: HDIKind = "std", bytes_per_element: int | None = None
) -> pd.DataFrame:
    """Return the long table of one prompt.

    GEN step g = 1, 2, … is the distribution that drew the g-th token; the PROMPT step, 0, is the distribution at the
    prompt's last position. The two are one measurement for g = 1, unless the last prompt token was fed twice: then the
    PROMPT step is the first of the two, and is absent if the prompt's positions were not measured.

    Args:
      trace: generated trace with output, attention and hidden probes.
      number: number of the prompt in the trace.
      bytes_per_element: bytes of a cached element; None for the trace's own.

    Returns:
      The paper's columns and, since there are several prompts and two drifts, `prompt` and `delta_l2_step`
      (‖x_l(t) − x_l(t−1)‖₂, while `delta_l2_from_prev` is ‖x_l − x_{l−1}‖₂). Layer 0 is the embedding: its attention
      columns and `delta_l2_from_prev` are NaN. The last layer is measured before the final norm. Entropies are in nats,
      `kv_total_mb` in MiB; both kv columns are NaN if the trace lacks the shape of its cache.
    """
    row = trace.rows[number]
    first = row.prompt_steps
    prompt_step = first - duplicated_tokens(trace)
    has_prompt_step = 0 <= prompt_step < row.length
    steps = np.array([prompt_step] * has_prompt_step + list(range(first, row.length)), int)
    is_prompt = np.arange(len(steps)) < has_prompt_step
    layers = (0, *trace.traced_layers)
    cached = cached_tokens(row)[steps]
    memory = KVMemory.from_info(trace.info, bytes_per_element)

    def by_step(values: object) -> np.ndarray:
        return np.repeat(np.asarray(values), len(layers))

    def by_layer(values: np.ndarray) -> np.ndarray:
        missing = np.full((len(steps), len(layers) - values.shape[1]), np.nan)
        return np.concatenate([missing, values[steps]], axis=1).ravel()

    metrics = row.metrics
    columns = {
        "model": label,
        "prompt": prompt_name(row, number),
        "phase": by_step(np.where(is_prompt, "PROMPT", "GEN")),
        "step": by_step(np.where(is_prompt, 0, steps - first + 1)),
        "layer": np.tile(layers, len(steps)),
        "token_id": by_step(metrics["token"][steps]),
        "token_text": by_step([row.pieces[step] for step in steps]),
        "output_entropy": by_step(metrics["entropy"][steps]),
        "top1_prob": by_step(metrics["top1_prob"][steps]),
        "top1_top2_gap": by_step(metrics["top1_top2_gap"][steps]),
        "attn_entropy_mean": by_layer(metrics["attention_entropy"].mean(-1)),
        "hdi": by_layer(dispersion(metrics, hdi)),
        "hidden_l2": by_layer(metrics["hidden_norm"]),
        "delta_l2_from_prev": by_layer(metrics["hidden_delta_layer"]),
        "delta_l2_step": by_layer(metrics["hidden_delta_step"]),
        "kv_bytes_layer": np.nan,
        "kv_total_mb": np.nan,
    }
    if memory is not None:
        columns["kv_bytes_layer"] = [memory.layer_bytes(layer, tokens) for tokens in cached for layer in layers]
        columns["kv_total_mb"] = by_step([memory.mib(tokens) for tokens in cached])
    return pd.DataFrame(columns)


def write_long(
    label: str, trace: Trace, file: Path, *, hdi: HDIKind = "std", bytes_per_element: int | None = None
) -> None:
    """Write the long table of a trace, prompt by prompt.

    Args:
      file: file ending in .parquet or .csv; it is replaced, and its directory is created if missing.

    Raises:
      StudyError: the trace has no finished prompt, or lacks a probe.
    """
    require_metrics({label: trace}, *OUTPUT, "attention_entropy", *HIDDEN, dispersion_metric(hdi))
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"hdi": hdi, "bytes_per_element": bytes_per_element}
    frames = (long_frame(label, trace, number, **settings) for number in range(len(trace.rows)))
    (_write_csv if file.suffix == ".csv" else _write_parquet)(frames, file)


def _write_csv(frames: Iterator[pd.DataFrame], file: Path) -> None:
    with atomic_file(file) as out:
        for number, frame in enumerate(frames):
            write_csv(frame, out, header=number == 0)


def _write_parquet(frames: Iterator[pd.DataFrame], file: Path) -> None:
    tables = (pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata() for frame in frames)
    first = next(tables)
    with atomic_file(file) as out, pq.ParquetWriter(out, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table.cast(first.schema))
