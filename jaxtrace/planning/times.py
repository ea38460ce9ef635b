"""Time of a decode step and of what each group of probes adds, estimated from rates of this machine."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from jaxtrace.models.config import DecoderConfig
from jaxtrace.planning.cost import lens_rows, parameter_count, step_flops
from jaxtrace.planning.machine import bandwidth, moment_rate, product_rate
from jaxtrace.settings.probes import Probes

QUICK_ENTRIES, QUICK_SIZE = 1 << 24, 1024  # of the arrays that are measured: 64 MiB each, and 2 GFLOP


@dataclass(frozen=True)
class Rates:
    """Rates of a device.

    Attributes:
      bandwidth: bytes per second of its memory.
      flops: operations per second of its matrix products.
      moments: logits or attention scores per second whose moments it computes.
      device: name of the device.
    """

    bandwidth: float
    flops: float
    moments: float
    device: str

    @classmethod
    def measured(cls) -> Rates:
        """Measure the default device in about a second."""
        rates = bandwidth(QUICK_ENTRIES), product_rate("float32", QUICK_SIZE), moment_rate()
        return cls(*rates, jax.devices()[0].device_kind)

    def __str__(self) -> str:
        return (
            f"{self.bandwidth / 1e9:.3g} GB/s, {self.flops / 1e12:.3g} TFLOP/s and the moments of "
            f"{self.moments / 1e9:.3g} billion logits/s, measured now on this machine ({self.device})"
        )


def step_seconds(config: DecoderConfig, probes: Probes, rates: Rates, rows: int, positions: int) -> dict[str, float]:
    """Return the seconds of a plain decode step in float32 ("plain"), and those that each group of probes adds.

    The plain step takes the longer of reading weights and caches once and of its products; a group takes its products,
    its passes over logits and attention scores, and its reading of keys and residual streams. Attention scores of the
    plain step, sampling and copies are excluded. With `lens_every` the lens's are means over steps.

    Args:
      rows: number of rows that run together.
      positions: number of positions in the cache of each row.
    """
    probes = probes.of_model(config)
    stored = 4 * parameter_count(config) + rows * (config.kv_bytes(positions) + config.recurrent_bytes())
    logits, width = config.vocab_size / rates.moments, config.embed_dim
    attending = [config.sized(config.kinds[i - 1]) for i in probes.layers(config) if config.kind(i - 1).attends_to_text]
    scores = positions * sum(layer.num_heads for layer in attending) / rates.moments
    products = 2 * positions * sum(layer.num_heads * layer.head_dim for layer in attending) / rates.flops
    streams = 4 * width * len(probes.stream(config)) / rates.bandwidth
    experts = 0 if config.experts is None else config.experts.number
    unembedded = 2 * config.vocab_size * width / rates.flops + logits
    of_groups = {
        "output": logits,
        "attention": scores,
        "dispersion": scores + products,
        "lens": lens_rows(config, probes) * unembedded,
        "hidden": 4 * streams,  # read and written for the norm of the state, and of its change by layer and by step
        "router": len(probes.layers(config)) * experts / rates.moments,
    }
    plain = max(stored / rates.bandwidth, rows * step_flops(config) / rates.flops)
    return {"plain": plain} | {group: rows * of_groups[group] for group in probes.groups}
