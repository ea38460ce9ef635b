"""Metrics of a step that users add: functions from logits, moments and residuals to an array."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrace.errors import ConfigError
from jaxtrace.kernels import AttentionMoments, Moments
from jaxtrace.plugins import failures_named, place_of
from jaxtrace.schema import STEP_METRICS, Metric, StepMetric, add_step_metric

Input = Literal["logits", "moments", "attention", "residuals"]
DIMS = ((), ("layer",), ("layer", "head"))  # dims that a metric may have


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepInputs:
    """Inputs of a plug-in's metric, at the T positions of a call; None for what no metric needs.

    Attributes:
      logits: raw logits, float32.
      moments: moments [B, T] of the next-token distribution: entropy, varentropy, logsumexp, p_max.
      attention: moments [B, T, L, N] of the attention weights of the recorded layers and their query heads.
      residuals: residual stream of the embedding and of the recorded layers.
    """

    logits: Float[Array, "B T V"] | None = None
    moments: Moments | None = None
    attention: AttentionMoments | None = None
    residuals: Float[Array, "B T L1 D"] | None = None


Compute = Callable[[StepInputs], Array]
F = TypeVar("F", bound=Compute)


def step_metric(
    *,
    definition: str,
    needs: tuple[Input, ...],
    dims: tuple[str, ...] = (),
    unit: str = "",
    label: str | None = None,
    feature: bool = False,
) -> Callable[[F], F]:
    """Return a decorator that registers a function StepInputs → array as the metric of the function's name.

    The function runs inside the jitted step, so it is made of JAX operations. `Probes(step_metrics=…)` and
    `--step-metrics` record its result.

    Args:
      definition: one line of text or formula.
      needs: fields of `StepInputs` that it reads.
      dims: () for an array [B, T], ("layer",) for [B, T, L], or ("layer", "head") for [B, T, L, N].
      unit: "nats", "nats²", or "" for a pure number.
      label: name for readers; None for the function's name.
      feature: True if a confidence model may use it.

    Raises:
      ConfigError: the name is taken, or the dims or needs are others than these.
    """
    fields = {field.name for field in dataclasses.fields(StepInputs)}
    if dims not in DIMS or not fields.issuperset(needs):
        known = ", ".join(sorted(fields))
        raise ConfigError(f"step_metric: dims {dims} and needs {needs}; dims are one of {DIMS}, needs some of {known}")

    def register(function: F) -> F:
        name = function.__name__
        metric = Metric(
            name,
            dims,
            "step_metrics",
            unit,
            definition,
            label or name.replace("_", " "),
            column=6,
            scale="sequential",
            tensorboard=() if dims else ("scalar",),
            feature=feature,
        )
        add_step_metric(StepMetric(metric, function, tuple(needs)), place_of(function))
        return function

    return register


def compute_step_metrics(
    names: tuple[str, ...], inputs: StepInputs, sizes: dict[str, int], positions: tuple[int, ...]
) -> dict[str, Array]:
    """Return metrics of plug-ins by name.

    Args:
      names: names of registered metrics.
      inputs: inputs that they need.
      sizes: number of recorded layers and of heads, as "layer" and "head".
      positions: (B, T).

    Raises:
      ConfigError: a metric fails, or its array is of another shape than its dims say, or is not real.
    """
    computed = {}
    for name in names:
        found = STEP_METRICS.find(name)
        assert found is not None  # the settings accept known names only
        with failures_named(f"step metric {name}"):
            values = jnp.asarray(found.compute(inputs))
        shape = (*positions, *(sizes[dim] for dim in found.metric.dims))
        if values.shape != shape or jnp.iscomplexobj(values):
            raise ConfigError(
                f"step metric {name}: returns {values.dtype} {list(values.shape)} instead of floats {list(shape)}; "
                "correct the plug-in"
            )
        computed[name] = values.astype(jnp.float32)
    return computed
