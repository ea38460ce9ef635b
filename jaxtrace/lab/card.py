"""The card of a trained model: what it is, how to make it again, what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtrace.lab.quiz import WELL_KNOWN, Quiz
from jaxtrace.statistics.intervals import Estimate

_CARD = """\
---
license: apache-2.0
language: en
---
# {name}: a model of a world whose truth is known

A decoder of {parameters:,} parameters ({family}, {layers} layers of width {width}), stored as bfloat16, trained from
random weights on a world that `jaxtrace.lab` invents and `world.json` describes. Nobody and no place in it is real, and
no other text was used. It is there to be traced, and good for nothing else.

    {command}

trains it again: {steps} steps of {batch} rows of {length} tokens, {tokens:.1f} M in all, {epochs:.1f} passes.

Measured on the stored weights, answers drawn greedily, with 95 % bootstrap intervals over people, or over sums. Loss on
other text about the same world: {loss:.4f} nats a token. (What is said of strangers is drawn at random, so it cannot
reach 0.)

Facts, by how often the text states them; "held-out" asks in words that the text uses for no fact of that person. The
entropy is that of the first token of the answer's value, in nats. A right answer about a fact that is never stated is a
lucky guess.

{facts}

Sums, by the digits of the longer addend:

{sums}

Facts never stated told from those stated {well_known} times or more by the mean token entropy of the whole answer:

{told_apart}
"""


def card_text(quiz: Quiz, **measured: float | int | str) -> str:
    """The card as Markdown.

    Args:
      quiz: what the stored weights answer.
      **measured: name, family, layers, width, parameters, command, steps, batch, length, tokens (millions), epochs,
        loss (nats).
    """
    facts = [(*sort, a.questions, _share(a.right), _shown(a.entropy)) for sort, a in quiz.facts.items()]
    sums = [(digits, a.questions, _share(a.right)) for digits, a in quiz.sums.items()]
    told_apart = [(kind, auc.n, _shown(auc)) for kind, auc in quiz.told_apart.items()]
    return _CARD.format(
        facts=_table(("asked", "stated", "questions", "right", "entropy"), facts),
        sums=_table(("digits", "questions", "right"), sums),
        told_apart=_table(("asked", "people", "AUROC"), told_apart),
        well_known=WELL_KNOWN,
        **measured,
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [[*head], ["---"] * len([*head]), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
