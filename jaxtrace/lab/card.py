"""Card of a trained model: its shape, its training and its answers."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtrace.lab.quiz import WELL_KNOWN, QuizResult
from jaxtrace.lab.settings import DecoderRecipe
from jaxtrace.lab.shapes import Shape
from jaxtrace.statistics.intervals import FEW, Estimate

_CARD = """\
---
license: apache-2.0
language: en
---
# {name}: a model of a world whose truth is known

A decoder of {parameters:,} parameters ({shape.family}, {shape.layers} layers of width {shape.width}),
stored as bfloat16. It was trained from random weights on a world that `jaxtrace.lab` invents and `world.json`
describes. No person and no place in it is real, and no other text was used. The model serves to be traced, and for
nothing else.

    {command}

trains it again: {recipe.steps} steps of {recipe.batch} rows of {recipe.length} tokens, {tokens:.1f} M tokens,
{epochs:.1f} epochs.

All numbers are measured on the stored weights, with greedy answers and 95 % intervals over people, or over sums
(\\*: over fewer than {few}). The loss on other text about the same world is {loss:.4f} nats per token. (It cannot reach
0, because facts about strangers are drawn at random.)

Facts, by the number of times the text states them. "held-out" asks in words that the text uses for no fact of that
person. The entropy is that of the first token of the answer's value, in nats. A right answer about a fact that is never
stated is a lucky guess.

{facts}

Sums, by the digits of the longer addend:

{sums}

AUROC of the mean token entropy of whole answers, for facts never stated against facts stated {well_known} times or
more:

{auroc}
"""


def card_text(shape: Shape, recipe: DecoderRecipe, result: QuizResult, *, rows: int, **facts: object) -> str:
    """Return the card as Markdown.

    Args:
      rows: number of rows of the training text.
      facts: name, command that trains the model again, number of parameters, and loss: the mean cross-entropy on other
        text, nats per token.
    """
    answers = [(*sort, a.questions, _percent(a.accuracy), _number(a.entropy)) for sort, a in result.facts.items()]
    sums = [(digits, a.questions, _percent(a.accuracy)) for digits, a in result.sums.items()]
    auroc = [(kind, area.n, _number(area)) for kind, area in result.auroc.items()]
    return _CARD.format(
        facts=_table(("asked", "stated", "questions", "right", "entropy"), answers),
        sums=_table(("digits", "questions", "right"), sums),
        auroc=_table(("asked", "people", "AUROC"), auroc),
        well_known=WELL_KNOWN,
        few=FEW,
        shape=shape,
        recipe=recipe,
        tokens=recipe.steps * recipe.batch * recipe.length / 1e6,
        epochs=recipe.steps * recipe.batch / rows,
        **facts,
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [[*head], ["---"] * len([*head]), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}){_mark(estimate)}"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}){_mark(estimate)}"


def _mark(estimate: Estimate) -> str:
    return r"\*" if estimate.few else ""
