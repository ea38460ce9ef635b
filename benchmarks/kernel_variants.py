"""Variants of one operation on one shape, with their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """Return ({name: variant to time}, {implementation that refuses or fails: its reason}).

    Args:
      against: baselines to add: NO_MOMENTS, UNFUSED.
    """
    case = _case(op, shape, dtype)
    timed: dict[str, Variant] = {}
    refused: dict[str, str] = {}
    for name in implementations:
        call = functools.partial(case.call, implementation=name)
        variant = Variant(call, case.arguments)
        try:
            _ = variant.result
        except Exception as error:
            refused[name] = reason(error)
            continue
        timed[name] = variant
        if NO_MOMENTS in against and op.endswith("attention"):
            timed[f"{NO_MOMENTS}/{name}"] = Variant(functools.partial(call, moments=False), case.arguments)
    if NO_MOMENTS in against:
        timed |= {f"{NO_MOMENTS}/{name}": variant for name, variant in case.no_moments.items()}
    if UNFUSED in against:
        timed[UNFUSED] = case.unfused
    return timed, refused


def reason(error: Exception) -> str:
    """Return in one line why a variant does not run: the refusal, or the first line of a failure."""
    return str(error) if isinstance(error, Unsupported) else f"failed: {f'{error!r}'.splitlines()[0][:300]}"


class _Case(NamedTuple):
    """An operation on one shape: its function, its arguments, and its baselines."""

    call: Callable[..., Any]
    arguments: tuple[jax.Array, ...]
    no_moments: dict[str, Variant]
    unfused: Variant


def _case(op: str, shape: AxisSizes, dtype: str) -> _Case:
    """Return a case of random arrays; logits and scores have a standard deviation of about 2; every slot is filled."""
    keys = iter(jax.random.split(jax.random.key(0), 3))

    def normal(axes: str, deviation: float = 1.0) -> jax.Array:
        sizes = [shape[axis] for axis in axes]
        return (jax.random.normal(next(keys), sizes, jnp.float32) * deviation).astype(dtype)

    if op == "softmax_moments":
        logits = (normal("RV", 2.0),)
        call = functools.partial(kernels.softmax_moments, alphas=ALPHAS)
        no_moments = {"logsumexp": Variant(baselines.logsumexp, logits)}
        return _Case(call, logits, no_moments, Variant(baselines.unfused_softmax, logits))
    if op == "unembed_moments":
        targets = jax.random.randint(next(keys), (shape["R"],), 0, shape["V"])
        product = normal("GRD"), normal("VD", 2 / shape["D"] ** 0.5)

        def unembed(hidden: jax.Array, unembedding: jax.Array, targets: jax.Array, **options: Any) -> Any:
            return kernels.unembed_moments(hidden, unembedding, targets=targets, alphas=ALPHAS, **options)

        no_moments = {
            "largest-logits": Variant(baselines.largest_logits, product),
            "stored-logits": Variant(baselines.logits_of, product),
        }
        arguments = (*product, targets)
        return _Case(unembed, arguments, no_moments, Variant(baselines.unfused_unembed, arguments))
    call = functools.partial(getattr(kernels, op), scale=shape["H"] ** -0.5)
    q, k = normal("BNH" if op == "decode_attention" else "BTNH", 2.0), normal("BKHS")
    start = jnp.full(shape["B"], shape["S"] - shape.get("T", 0))  # decode: the length
    if op == "head_dispersion":
        no_moments = {"largest-scores": Variant(baselines.largest_scores, (q, k))}
        return _Case(call, (q, k, start), no_moments, Variant(baselines.unfused_dispersion, (q, k)))
    v = normal("BKSH")
    queries = q[:, None] if op == "decode_attention" else q
    layout = (queries, k.transpose(0, 3, 1, 2), v.transpose(0, 2, 1, 3))
    no_moments = {"dot_product_attention": Variant(baselines.dot_product_attention, layout)}
    if jax.default_backend() == "gpu" and dtype == "bfloat16":  # cuDNN has no attention of float32
        no_moments["cudnn"] = Variant(baselines.cudnn_attention, layout)
    return _Case(call, (q, k, v, start), no_moments, Variant(baselines.unfused_attention, (queries, k, v)))
