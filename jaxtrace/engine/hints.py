"""A hint that a default is expensive here, logged once in a process."""

from __future__ import annotations

import logging
import threading

import jax

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, active_parameter_count
from jaxtrace.settings.probes import Probes

LEAST_RATIO = 3  # of the lens's operations to the plain step's
LEAST_OPERATIONS = 1e9  # of the lens in a step; fewer take at most about 10 ms on two cores
OPERATIONS_PER_BYTE = 8  # that a CPU's products do while it reads a byte of weights, about
LOGGED = threading.Event()


def hint_at_lens(config: DecoderConfig, params: Params, probes: Probes, rows: int) -> None:
    """Log, on a CPU with default probes, that the lens costs several times the plain step.

    The plain step counts as its operations, or as those that fit the time of reading its weights if these are more.

    Args:
      rows: number of positions that are unembedded together.
    """
    if LOGGED.is_set() or jax.default_backend() != "cpu" or jax.process_index() or probes != Probes.all():
        return
    lens = 2 * rows * (config.num_layers - 1) * config.vocab_size * config.embed_dim
    parameters = active_parameter_count(config)
    read = OPERATIONS_PER_BYTE * parameters * params["embedding"].dtype.itemsize
    if lens < max(LEAST_OPERATIONS, LEAST_RATIO * max(2 * rows * parameters, read)):
        return
    LOGGED.set()
    logging.getLogger("jaxtrace").warning(
        "lens: of all %d layers at every step, it multiplies %.1f times as much as the plain step, which slows a CPU; "
        "take it at fewer layers or steps (--lens-stride 4, --lens-every 8), or drop it (--probes output,attention)",
        config.num_layers,
        lens / (2 * rows * parameters),
    )
