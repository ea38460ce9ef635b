"""What a model of the text world knows: answers and uncertainty by how often a fact was stated."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from jaxtrace.lab.tokenizer import PAD_ID
from jaxtrace.lab.world import CLASSES, World, question

ANSWER_TOKENS = 8
Logits = Callable[[Int[np.ndarray, "B T"]], Float[np.ndarray, "B T V"]]


@dataclass(frozen=True)
class QuizResult:
    """All three questions about every person of one class.

    Attributes:
      seen: the class.
      questions: how many were asked.
      accuracy: share whose greedy answer is the right one; for "never" the world has an answer that the
        text does not state, so this is the rate of lucky guesses.
      entropy: mean entropy of the answer's first token, in nats.
      low, high: 10th and 90th percentile of the same.
    """

    seen: str
    questions: int
    accuracy: float
    entropy: float
    low: float
    high: float


def quiz(world: World, tokenizer: Tokenizer, logits: Logits) -> list[QuizResult]:
    """Asks every question of the world, class by class.

    Args:
      world: the world that the model was trained on.
      tokenizer: its tokenizer.
      logits: the model: right-padded ids [B, T] to logits [B, T, V].

    Returns:
      One result per class, in the order of `CLASSES`.
    """
    results = []
    for seen in CLASSES:
        asked = [(p, relation) for p in world.people if p.seen == seen for relation in p.facts]
        encoded = [tokenizer.encode(question(p, relation)).ids for p, relation in asked]
        answers, entropies = _greedy(tokenizer, logits, encoded)
        right = [text.startswith(f" {p.facts[r]}.") for text, (p, r) in zip(answers, asked, strict=True)]
        low, high = np.percentile(entropies, [10, 90])
        numbers = (float(x) for x in (np.mean(right), entropies.mean(), low, high))
        results.append(QuizResult(seen, len(asked), *numbers))
    return results


def _greedy(
    tokenizer: Tokenizer, logits: Logits, prompts: list[list[int]]
) -> tuple[list[str], Float[np.ndarray, " B"]]:
    rows = np.arange(len(prompts))
    ends = np.array([len(ids) for ids in prompts])
    tokens = np.full((len(prompts), ends.max() + ANSWER_TOKENS), PAD_ID, np.int32)
    for row, ids in enumerate(prompts):
        tokens[row, : len(ids)] = ids
    for offset in range(ANSWER_TOKENS):
        step = np.asarray(logits(tokens))[rows, ends + offset - 1]
        if offset == 0:
            entropies = _entropy(step)
        tokens[rows, ends + offset] = step.argmax(-1)
    answers = [row[end : end + ANSWER_TOKENS].tolist() for row, end in zip(tokens, ends, strict=True)]
    return tokenizer.decode_batch(answers), entropies


def _entropy(logits: Float[np.ndarray, "B V"]) -> Float[np.ndarray, " B"]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(-1)
    return np.log(total) - (weights * shifted).sum(-1) / total
