"""Estimators from the distance of each next-token distribution p from the uniform distribution U over V tokens.

FisherRao and RenyiNeg (Darrin et al. 2023) have a temperature. At temperature 1 they follow their definitions. The
forms at temperature 2 follow lm-polygraph 0.7.0: q is p^½ normalised, whose sums of powers are those of p. With
R(β) = Σ p^β = exp((1 − β) H_β), Σ √q is R(¼) / √R(½). They need the Rényi entropies of orders ¼ and ½.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxtrace.errors import LackingError
from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores, drawn, log_vocab, score_tokens
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

DARRIN = "Darrin et al. 2023 (arXiv 2212.09171)"
POLYGRAPH_T2 = "lm-polygraph's form of Darrin et al. 2023"

OfRow = Callable[[Row], Float[np.ndarray, " drawn"]]


@estimator(formula="−mean KL(U ‖ p)", source="Kang et al. 2025 (arXiv 2502.18581)", metrics=("self_certainty",))
def self_certainty(trace: Trace) -> Scores:
    """Return the negative mean divergence of the uniform distribution from each next-token distribution, in nats."""
    return score_tokens(trace, lambda row: -drawn(row, "self_certainty"), np.mean)


@estimator(formula="mean (2/π) arccos(Σ √p / √V)", source=DARRIN, metrics=("fisher_rao",), higher_is_uncertain=False)
def fisher_rao(trace: Trace) -> Scores:
    """Return the mean Fisher–Rao distance of the next-token distributions from the uniform one, 0 … 1."""
    return score_tokens(trace, lambda row: drawn(row, "fisher_rao"), np.mean)


@estimator(
    formula="mean (2/π) arccos(Σ √q / √V), q ∝ √p", source=POLYGRAPH_T2, metrics=("renyi",), higher_is_uncertain=False
)
def fisher_rao_t2(trace: Trace) -> Scores:
    """Return the mean Fisher–Rao distance from the uniform distribution at temperature 2, 0 … 1."""
    log_sum, log_v = _tempered_log_sum("fisher_rao_t2", trace), log_vocab("fisher_rao_t2", trace)

    def distance(row: Row) -> Float[np.ndarray, " drawn"]:
        return 2 / np.pi * np.arccos(np.minimum(np.exp(log_sum(row) - log_v / 2), 1))

    return score_tokens(trace, distance, np.mean)


@estimator(formula="mean (ln V − H_½)", source=DARRIN, metrics=("renyi",), higher_is_uncertain=False)
def renyi_neg(trace: Trace) -> Scores:
    """Return the mean Rényi divergence of order ½ from the uniform distribution, in nats."""
    half, log_v = _renyi("renyi_neg", trace, 0.5), log_vocab("renyi_neg", trace)
    return score_tokens(trace, lambda row: log_v - half(row), np.mean)


@estimator(
    formula="mean (−2 ln Σ √q − ln V), q ∝ √p", source=POLYGRAPH_T2, metrics=("renyi",), higher_is_uncertain=False
)
def renyi_neg_t2(trace: Trace) -> Scores:
    """Return lm-polygraph's RenyiNeg at temperature 2, in nats: the divergence of order ½ less 2 ln V."""
    log_sum, log_v = _tempered_log_sum("renyi_neg_t2", trace), log_vocab("renyi_neg_t2", trace)
    return score_tokens(trace, lambda row: -2 * log_sum(row) - log_v, np.mean)


def _tempered_log_sum(name: str, trace: Trace) -> OfRow:
    """Return the function from a row to ln Σ √q = ln R(¼) − ½ ln R(½)."""
    quarter, half = _renyi(name, trace, 0.25), _renyi(name, trace, 0.5)
    return lambda row: 0.75 * quarter(row) - 0.25 * half(row)


def _renyi(name: str, trace: Trace, alpha: float) -> OfRow:
    """Return the function from a row to the Rényi entropies of an order."""
    orders = [float(order) for order in trace.info["alphas"]]
    if alpha not in orders:
        wanted = ",".join(f"{order:g}" for order in sorted({alpha, *orders}))
        raise LackingError(f"{name}: has no Rényi entropy of order {alpha:g}; trace it again with --alphas {wanted}")
    return lambda row: drawn(row, "renyi")[:, orders.index(alpha)]
