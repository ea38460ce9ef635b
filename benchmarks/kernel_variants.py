"""Variants of one operation on one shape, with their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jaxtrace.kernels as kernels
from jaxtrace.kernels.decode_attention.api import OPERATION as DECODE
from jaxtrace.kernels.dispatch import Operation, Unsupported
from jaxtrace.kernels.head_dispersion.api import OPERATION as DISPERSION
from jaxtrace.kernels.prefill_attention.api import OPERATION as PREFILL
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from jaxtrace.kernels.unembed_moments.api import OPERATION as UNEMBED

from benchmarks import kernel_baselines as baselines
from benchmarks.kernel_baselines import ALPHAS
from benchmarks.kernel_shapes import AxisSizes

OPERATIONS: dict[str, Operation] = {op.name: op for op in (SOFTMAX, UNEMBED, DECODE, PREFILL, DISPERSION)}
NO_MOMENTS, UNFUSED = "no-moments", "unfused"


@dataclass(frozen=True)
class Variant:
    """A function and its arguments."""

    function: Callable[..., Any]
    arguments: tuple[jax.Array, ...]

    @functools.cached_property
    def result(self) -> Any:
        """Shapes and dtypes of the result; raises `Unsupported` if the implementation refuses."""
        return jax.eval_shape(self.function, *self.arguments)

    @property
    def moved(self) -> int:
        """Bytes of the arguments and of the result, each counted once."""
        arrays = (*self.arguments, *jax.tree.leaves(self.result))
        return sum(array.size * array.dtype.itemsize for array in arrays)


def usual_implementations(op: str) -> list[str]:
    """Return the implementations that run here, except the slow ones: the reference and interpreted kernels."""
    platform = jax.default_backend()
    return [
        name
        for name, implementation in OPERATIONS[op].implementations.items()
        if implementation.refusal(platform) is None and name != "reference" and not name.endswith("_interpret")
    ]


def variants(
    op: str, shape: AxisSizes, dtype: str, implementations: Sequence[str], against: Sequence[str]
) -> tuple[dict[str, Variant], dict[str, str]]:
    """Return ({name: variant to time}, {implementation that refuses: its reason}).

    Args:
      against: baselines to add: NO_MOMENTS, UNFUSED.
    """
    arguments = _arguments(op, shape, dtype)
    timed: dict[str, Variant] = {}
    refused: dict[str, str] = {}
    for name in implementations:
        variant = Variant(_implementation(op, shape, name), arguments)
        try:
            _ = variant.result
        except Unsupported as error:
            refused[name] = str(error)
            continue
        timed[name] = variant
        if NO_MOMENTS in against and op.endswith("attention"):
            timed[f"{NO_MOMENTS}/{name}"] = Variant(_implementation(op, shape, name, moments=False), arguments)
    if NO_MOMENTS in against:
        timed |= {f"{NO_MOMENTS}/{name}": variant for name, variant in _no_moments(op, arguments).items()}
    if UNFUSED in against:
        timed[UNFUSED] = _unfused(op, arguments)
    return timed, refused


def _implementation(op: str, shape: AxisSizes, implementation: str, **options: Any) -> Callable[..., Any]:
    options["implementation"] = implementation
    match op:
        case "softmax_moments":
            return functools.partial(kernels.softmax_moments, alphas=ALPHAS, **options)
        case "unembed_moments":
            return lambda hidden, unembedding, targets: kernels.unembed_moments(
                hidden, unembedding, targets=targets, alphas=ALPHAS, **options
            )
    return functools.partial(getattr(kernels, op), scale=shape["H"] ** -0.5, **options)


def _no_moments(op: str, arguments: tuple[jax.Array, ...]) -> dict[str, Variant]:
    match op:
        case "softmax_moments":
            return {"logsumexp": Variant(baselines.logsumexp, arguments)}
        case "unembed_moments":
            return {
                "largest-logits": Variant(baselines.largest_logits, arguments[:2]),
                "stored-logits": Variant(baselines.logits_of, arguments[:2]),
            }
        case "head_dispersion":
            return {"largest-scores": Variant(baselines.largest_scores, arguments[:2])}
    q, k, v = _with_queries(op, arguments)[:3]
    layout = (q, k.transpose(0, 3, 1, 2), v.transpose(0, 2, 1, 3))
    return {"dot_product_attention": Variant(baselines.dot_product_attention, layout)}


def _unfused(op: str, arguments: tuple[jax.Array, ...]) -> Variant:
    match op:
        case "softmax_moments":
            return Variant(baselines.unfused_softmax, arguments)
        case "unembed_moments":
            return Variant(baselines.unfused_unembed, arguments)
        case "head_dispersion":
            return Variant(baselines.unfused_dispersion, arguments[:2])
    return Variant(baselines.unfused_attention, _with_queries(op, arguments)[:3])


def _with_queries(op: str, arguments: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Return the arguments with a query axis: decode's one query per row, [B, N, H], becomes [B, 1, N, H]."""
    q, *others = arguments
    return (q[:, None] if op == "decode_attention" else q, *others)


def _arguments(op: str, shape: AxisSizes, dtype: str) -> tuple[jax.Array, ...]:
    """Return random arrays; logits and scores have a standard deviation of about 2, and every slot is filled."""
    keys = iter(jax.random.split(jax.random.key(0), 3))

    def normal(axes: str, deviation: float = 1.0) -> jax.Array:
        sizes = [shape[axis] for axis in axes]
        return (jax.random.normal(next(keys), sizes, jnp.float32) * deviation).astype(dtype)

    match op:
        case "softmax_moments":
            return (normal("RV", 2.0),)
        case "unembed_moments":
            targets = jax.random.randint(next(keys), (shape["R"],), 0, shape["V"])
            return normal("GRD"), normal("VD", 2 / shape["D"] ** 0.5), targets
        case "decode_attention":
            lengths = jnp.full(shape["B"], shape["S"])
            return normal("BNH", 2.0), normal("BKHS"), normal("BKSH"), lengths
    q, k = normal("BTNH", 2.0), normal("BKHS")
    start = jnp.full(shape["B"], shape["S"] - shape["T"])
    return (q, k, start) if op == "head_dispersion" else (q, k, normal("BKSH"), start)
