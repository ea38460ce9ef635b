"""The card of a trained model: what it is, how to make it again, what was measured."""

from collections.abc import Sequence

from jaxtrace.lab.quiz import QuizResult

_CARD = """\
---
license: apache-2.0
language: en
---
# The demo model of jaxtrace

A Llama-architecture decoder of {parameters:,} parameters, stored as bfloat16, trained from random weights on
a world that `jaxtrace.lab.world` invents: people, their homes, origins and trades, and small sums. Nobody and
no place in it is real, and no other text was used. Each fact is stated in the training text 400 times
("often"), 3 to 17 times ("rare") or not at all ("never": the name alone occurs), so what the model can know is
known. It is there to be traced, and good for nothing else.

    python -m jaxtrace.lab.train --out DIR {flags}

trains it again: {steps} steps of {batch} rows of {length} tokens, {tokens:.1f} M in all, {epochs:.1f} passes.

Measured on the stored weights: held-out loss {loss:.4f} nats a token, perplexity {perplexity:.3f}. (What is said
of strangers is drawn at random, so it cannot reach 1.) Every question of the world, answered greedily:

| facts | questions | right answers | entropy of the answer's first token in nats (10th to 90th percentile) |
|---|---|---|---|
{table}

For "never" a right answer is a lucky guess; a uniform guess over 32 places or trades has an entropy of 3.47.
"""


def card_text(results: Sequence[QuizResult], **measured: float | int | str) -> str:
    """The card as Markdown.

    Args:
      results: the quiz of the stored weights, a line of the table each.
      **measured: parameters, flags, steps, batch, length, tokens (millions), epochs, loss (nats), perplexity.
    """
    lines = [
        f"| {r.seen} | {r.questions} | {r.accuracy:.1%} | {r.entropy:.3f} ({r.low:.3f} to {r.high:.3f}) |"
        for r in results
    ]
    return _CARD.format(table="\n".join(lines), **measured)
