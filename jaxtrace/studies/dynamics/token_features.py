"""Generated traces as flat tables: a row per token, and a row per prompt and layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError
from jaxtrace.studies._shared.traces import require
from jaxtrace.studies.dynamics.dispersion_kinds import dispersion, dispersion_metric
from jaxtrace.studies.dynamics.kv_memory import KVMemory
from jaxtrace.studies.dynamics.long_format import cached_tokens, prompt_name
from jaxtrace.studies.dynamics.settings import HDIKind
from jaxtrace.traces.trace import Row, Trace

OUTPUT = ("entropy", "varentropy", "top1_prob", "top1_top2_gap")
ATTENTION = ("attention_entropy", "attention_entropy_normalized", "attention_entropy_no_sink", "sink_mass")
HIDDEN = ("hidden_norm", "hidden_delta_layer", "hidden_delta_step")
FEATURES = (*OUTPUT, *ATTENTION, "hdi", *HIDDEN)


@dataclass(frozen=True)
class Flat:
    """What the steps of some generated traces say.

    Attributes:
      tokens: a row per drawn token: model, prompt (its number), group, step (from 1), keys (tokens in the cache),
        kv_mib, and FEATURES: means over heads and layers (hidden_norm: the embedding too).
      layers: a row per prompt and layer from 1, means over its steps: model, prompt, group, layer,
        attention_entropy, hdi.
      prompts: a row per prompt: model, prompt, group, name, text, prompt_tokens, steps.
    """

    tokens: pd.DataFrame
    layers: pd.DataFrame
    prompts: pd.DataFrame

    def of(self, model: str) -> Flat:
        """That of one model."""
        return Flat(*(frame[frame["model"] == model] for frame in (self.tokens, self.layers, self.prompts)))

    @property
    def models(self) -> list[str]:
        """Their labels, in order."""
        return list(self.prompts["model"].unique())


def flatten(traces: Mapping[str, Trace], *, hdi: HDIKind = "std", bytes_per_element: int | None = None) -> Flat:
    """Reads the traces once, row by row.

    Rows of the same prompt tokens (several samples) are one group, the unit of intervals. Steps that drew nothing,
    where logits were not finite, are left out.

    Args:
      traces: by label of the model; generated, with output, attention and hidden probes ("jsd": dispersion too).
      hdi: kind of dispersion over heads.
      bytes_per_element: of the cache; None for the trace's own.

    Raises:
      StudyError: a trace lacks a probe, is of given text, or has no finite step.
    """
    require(traces, *OUTPUT, *ATTENTION, *HIDDEN, dispersion_metric(hdi))
    tokens, layers, prompts = [], [], []
    for label, trace in traces.items():
        if trace.info["mode"] != "generate":
            raise StudyError(f"{label}: is a trace of given text; give one of generated text (without --score)")
        memory = KVMemory.of(trace.info, bytes_per_element)
        groups: dict[bytes, int] = {}
        steps_before = len(tokens)
        for number, row in enumerate(trace.rows):
            group = groups.setdefault(row.prompt_tokens.tobytes(), len(groups))
            drawn = np.flatnonzero(row.metrics["token"] >= 0)
            drawn = drawn[drawn >= row.prompt_steps]
            if not len(drawn):
                continue
            key = {"model": label, "prompt": number, "group": group}
            dispersed = dispersion(row.metrics, hdi)
            tokens.append(_tokens(key, row, drawn, dispersed, memory))
            layers.append(_layers(key, row, drawn, dispersed, trace.traced_layers))
            own = len(row.prompt_tokens) - bool(trace.info.get("last_prompt_token_twice"))
            said = {"name": prompt_name(row, number), "text": row.prompt.text, "prompt_tokens": own}
            prompts.append({**key, **said, "steps": len(drawn)})
        if len(tokens) == steps_before:
            raise StudyError(f"{label}: no step has finite logits; trace a model that gives some")
    return Flat(pd.concat(tokens, ignore_index=True), pd.concat(layers, ignore_index=True), pd.DataFrame(prompts))


def _tokens(
    key: dict[str, object], row: Row, drawn: np.ndarray, dispersed: np.ndarray, memory: KVMemory | None
) -> pd.DataFrame:
    keys = cached_tokens(row)[drawn]
    columns = {name: _over_layers(row.metrics[name][drawn]) for name in (*OUTPUT, *ATTENTION, *HIDDEN)}
    columns["hdi"] = _over_layers(dispersed[drawn])
    kv = np.nan if memory is None else [memory.mib(count) for count in keys.tolist()]
    steps = drawn - row.prompt_steps + 1
    return pd.DataFrame({**key, "step": steps, "keys": keys, "kv_mib": kv, **columns})


def _layers(
    key: dict[str, object], row: Row, drawn: np.ndarray, dispersed: np.ndarray, layers: tuple[int, ...]
) -> pd.DataFrame:
    entropy = np.asarray(row.metrics["attention_entropy"][drawn], float).mean((0, 2))
    return pd.DataFrame({**key, "layer": layers, "attention_entropy": entropy, "hdi": dispersed[drawn].mean(0)})


def _over_layers(values: np.ndarray) -> np.ndarray:
    """Means over all that comes after the steps; layers that see no image hold NaN and are passed over."""
    flat = np.asarray(values, float).reshape(len(values), -1)
    there = ~np.isnan(flat)
    return np.divide(np.nansum(flat, 1), there.sum(1), out=np.full(len(flat), np.nan), where=there.any(1))
