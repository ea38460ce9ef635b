"""Generated traces as flat tables: a row per token, and a row per prompt and layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Int

from jaxtrace.errors import StudyError
from jaxtrace.statistics.means import finite_mean
from jaxtrace.studies._shared.published import duplicated_tokens
from jaxtrace.studies._shared.traces import mean_by_step
from jaxtrace.studies.dynamics.quantities import KVMemory, dispersion, dispersion_metric
from jaxtrace.studies.dynamics.settings import HDIKind
from jaxtrace.traces.layers import layer_count, layers_text
from jaxtrace.traces.requirements import require_generated, require_metrics
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

OUTPUT = ("entropy", "varentropy", "top1_prob", "top1_top2_gap")
ATTENTION = ("attention_entropy", "attention_entropy_normalized", "attention_entropy_no_sink", "sink_mass")
HIDDEN = ("hidden_norm", "hidden_delta_layer", "hidden_delta_step")
FEATURES = (*OUTPUT, *ATTENTION, "hdi", *HIDDEN)


@dataclass(frozen=True)
class TokenTables:
    """Tables of the steps of generated traces.

    Attributes:
      tokens: one row per drawn token: model, prompt (its number), group, step (from 1), keys (tokens in the cache),
        kv_mib, and FEATURES: means over heads and the layers that have values (hidden_norm: the embedding too).
      layers: one row per prompt and layer from 1, means over its steps: model, prompt, group, layer,
        attention_entropy, hdi.
      prompts: one row per prompt: model, prompt, group, name, text, prompt_tokens, steps.
      excluded: number of each model's prompts without a drawn token, if there are any.
      attention_layers: number of layers that the means of each model's attention are over, as `layers_text` gives it.
    """

    tokens: pd.DataFrame
    layers: pd.DataFrame
    prompts: pd.DataFrame
    excluded: Mapping[str, int] = field(default_factory=dict)
    attention_layers: Mapping[str, str] = field(default_factory=dict)

    def of_model(self, model: str) -> TokenTables:
        """Return the rows of one model."""
        frames = (self.tokens, self.layers, self.prompts)
        tokens, layers, prompts = (frame[frame["model"] == model] for frame in frames)
        return TokenTables(tokens, layers, prompts)

    @property
    def models(self) -> list[str]:
        """Labels of the models, in order."""
        return list(self.prompts["model"].unique())


def token_tables(
    traces: Mapping[str, Trace], *, hdi: HDIKind = "std", bytes_per_element: int | None = None
) -> TokenTables:
    """Read the traces once, row by row.

    Rows of the same prompt tokens (several samples) are one group, the unit of intervals. Steps that drew no token,
    because logits were not finite, are dropped.

    Args:
      traces: generated traces with output, attention and hidden probes ("jsd": dispersion too), by label of the model.
      bytes_per_element: bytes of a cached element; None for the trace's own.

    Raises:
      StudyError: a trace lacks a probe, holds given text, or has no finite step.
    """
    require_metrics(traces, *OUTPUT, *ATTENTION, *HIDDEN, dispersion_metric(hdi))
    tokens, layers, prompts, excluded, attention_layers = [], [], [], {}, {}
    for label, trace in traces.items():
        require_generated(label, trace)
        memory = KVMemory.from_info(trace.info, bytes_per_element)
        groups: dict[bytes, int] = {}
        prompts_before, counts = len(prompts), set()
        for number, row in enumerate(trace.rows):
            group = groups.setdefault(row.prompt_tokens.tobytes(), len(groups))
            steps = row.drawn_steps
            if not len(steps):
                continue
            counts.add(layer_count(row, "attention_entropy"))
            keys = {"model": label, "prompt": number, "group": group}
            dispersed = dispersion(row.metrics, hdi)
            tokens.append(_token_rows(keys, row, steps, dispersed, memory))
            layers.append(_layer_rows(keys, row, steps, dispersed, trace.traced_layers))
            prompt_tokens = len(row.prompt_tokens) - duplicated_tokens(trace)
            about = {"name": prompt_name(row, number), "text": row.prompt.text, "prompt_tokens": prompt_tokens}
            prompts.append({**keys, **about, "steps": len(steps)})
        if missing := len(trace.rows) - (len(prompts) - prompts_before):
            excluded[label] = missing
        if len(prompts) == prompts_before:
            raise StudyError(f"{label}: has no step with finite logits; trace another model")
        attention_layers[label] = layers_text(counts, trace.num_layers)
    frames = (pd.concat(tables, ignore_index=True) for tables in (tokens, layers))
    return TokenTables(*frames, pd.DataFrame(prompts), excluded, attention_layers)


def prompt_name(row: Row, number: int) -> str:
    """Return the id of a prompt, or its number if it has none."""
    return row.prompt.id or str(number)


def cached_tokens(row: Row) -> Int[np.ndarray, " steps"]:
    """Return the number of tokens in the cache when a step's distribution is measured."""
    return len(row.prompt_tokens) - row.prompt_steps + np.arange(row.length)


def _token_rows(
    keys: dict[str, object], row: Row, steps: np.ndarray, dispersed: np.ndarray, memory: KVMemory | None
) -> pd.DataFrame:
    cached = cached_tokens(row)[steps]
    columns = {name: mean_by_step(row, name, steps) for name in (*OUTPUT, *ATTENTION, *HIDDEN)}
    missing = np.isnan(columns["attention_entropy"])
    columns["hdi"] = np.where(missing, np.nan, finite_mean(dispersed[steps], 1))
    kv = np.nan if memory is None else [memory.mib(count) for count in cached.tolist()]
    numbers = steps - row.prompt_steps + 1
    return pd.DataFrame({**keys, "step": numbers, "keys": cached, "kv_mib": kv, **columns})


def _layer_rows(
    keys: dict[str, object], row: Row, steps: np.ndarray, dispersed: np.ndarray, layers: tuple[int, ...]
) -> pd.DataFrame:
    entropy = np.asarray(row.metrics["attention_entropy"][steps], float).mean((0, 2))
    return pd.DataFrame({**keys, "layer": layers, "attention_entropy": entropy, "hdi": dispersed[steps].mean(0)})
