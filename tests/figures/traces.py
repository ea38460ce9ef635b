"""Synthetic traces with the shapes and rough trends of real ones."""

import numpy as np

from jaxtrace.prompts import Prompt
from jaxtrace.schema import GROUPS, METRICS
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

ALPHAS = (0.5, 2.0, 5.0)


def metrics(rng, steps, layers=6, heads=4, groups=GROUPS, tokens=None):
    """Return all metrics of `groups` for one row, with trends over depth and steps as real models have them."""
    values = {"token": np.arange(steps, dtype=np.int32) + 100 if tokens is None else np.asarray(tokens, np.int32)}
    sizes = {"layer": layers, "head": heads, "alpha": len(ALPHAS)}
    entropy = rng.gamma(1.3, 1.1, steps) * (0.6 + np.exp(-np.arange(steps) / 8))
    for name, metric in METRICS.items():
        if metric.group not in groups:
            continue
        shape = [steps] + [sizes[dim] for dim in metric.dims]
        if "layer" in metric.dims:
            shape[1] += 1 - metric.first_layer
        values[name] = np.abs(rng.normal(1, 0.3, shape)).astype(np.float32)
    depth = np.arange(1, layers + 1) / layers
    if "output" in groups:
        values["entropy"], values["varentropy"] = entropy, entropy * rng.gamma(4, 0.3, steps)
        values["logprob"] = -entropy * rng.gamma(2, 0.5, steps)
        values["top1_prob"] = np.exp(-entropy)
        values["top1_top2_gap"] = values["top1_prob"] * rng.uniform(0.2, 1, steps)
    if "attention" in groups:
        centre = 0.75 - 0.5 * depth[:, None] + np.linspace(-0.2, 0.2, heads) * np.sin(np.pi * depth)[:, None]
        share = np.clip(rng.normal(centre, 0.08, (steps, layers, heads)), 0.02, 1)
        values["sink_mass"] = 0.9 * (1 - share)
        values["attention_entropy_normalized"] = share
        values["attention_entropy"] = share * np.log(12 + np.arange(steps))[:, None, None]
        if "dispersion" in groups:
            values["hdi"] = values["attention_entropy"].std(-1)
            values["head_jsd"] = 2.2 * values["hdi"]
    if "lens" in groups:
        for name, top in (("lens_entropy", 9.0), ("lens_varentropy", 6.0), ("lens_kl", 8.0)):
            values[name] = top * (1 - depth) ** 0.7 * rng.gamma(20, 0.05, (steps, layers)) + entropy[:, None] * depth
        values["lens_kl"][:, -1] = 0
        right = depth > rng.uniform(0.2, 1, (steps, 1))
        right[:, -1] = True
        values["lens_top1"] = np.where(right, 7, rng.integers(8, 99, (steps, layers))).astype(np.int32)
    return {name: value if METRICS[name].integer else value.astype(np.float32) for name, value in values.items()}


def row(
    rng, pieces, *, text=None, prompt="Capital of Peru?", id="p", ids=range(4), meta=None, stop="length", **options
):
    """Return a generated row with these pieces; the prompt has the text `prompt` and the tokens `ids`."""
    return Row(
        prompt=Prompt(text=prompt, id=id, meta=meta or {}),
        prompt_tokens=np.array(ids, np.int32),
        prompt_pieces=("What", " is", " it", "?"),
        metrics=metrics(rng, len(pieces), **options),
        pieces=tuple(pieces),
        text="".join(pieces) if text is None else text,
        stop=stop,
    )


def trace(rows, mode="generate", layers=6, heads=4, **info):
    """Return a trace of these rows."""
    base = {"mode": mode, "layers": layers, "heads": heads, "alphas": list(ALPHAS), "model": "tiny"}
    return Trace(rows, base | info)
