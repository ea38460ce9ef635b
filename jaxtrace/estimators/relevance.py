"""Estimators that weigh an answer, or its tokens, by the similarity to other answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxtrace.estimators import sample_scores
from jaxtrace.estimators.answers import Answer, answers_by_prompt, score_compared
from jaxtrace.estimators.equivalence import AnswerPair, AnyComparison, comparer
from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores
from jaxtrace.traces.requirements import require_generated
from jaxtrace.traces.trace import Trace

DUAN = "Duan et al. 2024 (arXiv 2307.01379)"
CHUNK = 64  # answers whose tokens are compared at once: each pair of texts is in memory
VASHURIN = "Vashurin et al. 2025 (arXiv 2502.04964)"


@estimator(formula="−Σ R ln p[token] / Σ R; R = 1 − similarity without the token", source=DUAN, metrics=("logprob",))
def token_sar(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return the surprisal of each answer's tokens, weighted by their relevance, in nats.

    A token's relevance is 1 − the similarity of prompt and answer to the same text without the token. The token that
    ends an answer has none. Tokens are equally relevant if no token is.

    Args:
      similarity: comparison of two texts; it is called once per token.
    """
    require_generated("token_sar", trace)
    answers = [answer for answers in answers_by_prompt(trace) for answer in answers]
    scores, tokens = np.full(len(trace.rows), np.nan), [np.empty(0)] * len(trace.rows)
    for answer, surprisal in zip(answers, _relevant_surprisals(answers, similarity, "token_sar"), strict=True):
        scores[answer.row], tokens[answer.row] = surprisal.sum(), surprisal
    return Scores(scores, tokens)


@estimator(
    formula="mean over samples of −ln(p + Σ p' similarity / 0.001) over the other samples",
    source=DUAN,
    metrics=("logprob",),
    passes="samples",
)
def sentence_sar(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return the surprisal of the answers to each prompt, which similar answers lower, in nats.

    Args:
      similarity: comparison of two answers.
    """
    return score_compared(
        trace,
        "sentence_sar",
        similarity,
        lambda samples, nli: sample_scores.sentence_relevance([answer.logprob for answer in samples], nli[..., 0]),
    )


@estimator(formula="sentence_sar with p = exp(−token_sar)", source=DUAN, metrics=("logprob",), passes="samples")
def sar(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return the surprisal of the answers to each prompt by relevant tokens, which similar answers lower, in nats.

    Args:
      similarity: comparison of two answers, and of an answer to itself without a token.
    """
    compared = comparer(similarity)

    def of_prompt(samples: Sequence[Answer], nli: np.ndarray) -> float:
        surprisals = _relevant_surprisals(samples, compared, "sar")
        return sample_scores.sentence_relevance([-values.sum() for values in surprisals], nli[..., 0])

    return score_compared(trace, "sar", compared, of_prompt)


@estimator(
    formula="−Σ ln p[token] · (1 − mean similarity to the other answers)",
    source=VASHURIN,
    metrics=("logprob",),
    passes="samples",
)
def cocoa_msp(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return each answer's surprisal times its distance from the other answers to its prompt, in nats.

    The source and lm-polygraph compare the greedy answer with samples; here each sample is compared with the others.

    Args:
      similarity: comparison of two answers; both directions are averaged.
    """
    return _cocoa(trace, "cocoa_msp", similarity, lambda answer: -answer.logprob)


@estimator(
    formula="−mean ln p[token] · (1 − mean similarity to the other answers)",
    source=VASHURIN,
    metrics=("logprob",),
    passes="samples",
)
def cocoa_ppl(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return each answer's surprisal per token times its distance from the other answers to its prompt, in nats.

    Args:
      similarity: see `cocoa_msp`.
    """
    return _cocoa(trace, "cocoa_ppl", similarity, lambda answer: -answer.mean_logprob)


@estimator(
    formula="mean entropy · (1 − mean similarity to the other answers)",
    source=VASHURIN,
    metrics=("entropy",),
    passes="samples",
)
def cocoa_mte(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return each answer's mean token entropy times its distance from the other answers to its prompt, in nats.

    Args:
      similarity: see `cocoa_msp`.
    """
    return _cocoa(trace, "cocoa_mte", similarity, lambda answer: float(answer.entropies.mean()))


@estimator(
    formula="−Σ q k / Σ q over distinct answers; q = exp(mean ln p[token]), k = 1 − contradiction − ½ neutral",
    source="Qiu & Miikkulainen 2024 (arXiv 2405.13845)",
    metrics=("logprob",),
    passes="samples",
)
def semantic_density(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return the negative density of the other answers to its prompt around each answer, from −1 to 0.

    The source and lm-polygraph compare the greedy answer with samples, each after the prompt; here each sample is
    compared with the others, and the comparison sees the answers alone.

    Args:
      similarity: comparison of two answers; a model of entailment gives weight 1 to entailment and ½ to neutral.
    """

    def of_prompt(samples: Sequence[Answer], nli: np.ndarray) -> np.ndarray:
        kernel = np.maximum(0, 1 - nli[..., 2] - nli[..., 1] / 2)
        scores = []
        for i, answer in enumerate(samples):
            distinct = {other.text: j for j, other in reversed([*enumerate(samples)]) if j != i}
            others = [*distinct.values()]
            logprobs = [samples[j].mean_logprob for j in others]
            scores.append(-sample_scores.density(answer.mean_logprob, logprobs, kernel[i, others]))
        return np.array(scores)

    return score_compared(trace, "semantic_density", similarity, of_prompt)


def _cocoa(
    trace: Trace,
    name: str,
    similarity: AnyComparison,
    uncertainty: Callable[[Answer], float],
) -> Scores:
    return score_compared(
        trace,
        name,
        similarity,
        lambda samples, nli: (
            np.array([uncertainty(answer) for answer in samples]) * sample_scores.distances_from_others(nli[..., 0])
        ),
    )


def _relevant_surprisals(answers: Sequence[Answer], similarity: AnyComparison, estimator: str) -> list[np.ndarray]:
    """Return −ln p times relevance of the tokens [drawn tokens] of each answer; relevance sums to 1."""
    compared, surprisals = comparer(similarity), []
    for first in range(0, len(answers), CHUNK):
        part = answers[first : first + CHUNK]
        pairs = [pair for answer in part for pair in _pairs_without_each(answer)]
        asked = iter(compared.compare(pairs, estimator)[:, 0])
        for answer in part:
            similarities = np.array([next(asked) if piece else 1.0 for piece in answer.pieces])
            surprisals.append(-answer.logprobs * sample_scores.token_relevance(similarities))
    return surprisals


def _pairs_without_each(answer: Answer) -> Iterator[AnswerPair]:
    """Yield prompt and answer paired with the same text without each token that has a text."""
    whole = _after_prompt(answer, answer.pieces)
    for i, piece in enumerate(answer.pieces):
        if piece:
            yield AnswerPair(answer.prompt, whole, _after_prompt(answer, [*answer.pieces[:i], *answer.pieces[i + 1 :]]))


def _after_prompt(answer: Answer, pieces: Sequence[str]) -> str:
    return f"{answer.prompt} {''.join(pieces)}"
