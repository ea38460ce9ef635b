"""Statistics of hand-made answers, and the card that shows them."""

import numpy as np
import pytest

from jaxtrace.lab.card import card_text
from jaxtrace.lab.phrases import answer_lead
from jaxtrace.lab.quiz import summarize, with_answer_lead
from jaxtrace.lab.settings import DEMO_WORLD, LAB_WORLD, DecoderRecipe
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.tasks import prompts
from jaxtrace.lab.world import World
from jaxtrace.traces.row import Row


def answered(prompt, text, entropies):
    metrics = {"token": np.arange(len(entropies)), "entropy": np.array(entropies, np.float32)}
    return Row(prompt, np.zeros(1, np.int32), ("",), metrics, ("",) * len(entropies), text, "stop_token")


@pytest.fixture(scope="module")
def asked():
    return prompts(World(LAB_WORLD))


@pytest.fixture(scope="module")
def result(asked):
    """Facts stated 16 times or more and sums of one digit are right; entropy falls with ln(1 + stated)."""
    values, answers = [], []
    for prompt in asked:
        meta = prompt.meta
        if "stated" in meta:
            known, entropy = meta["stated"] >= 16, 4 - np.log1p(meta["stated"]) / 2
            text = f" {meta['answer']}." if known else " nowhere."
            values.append(answered(with_answer_lead(prompt), text, [entropy, 0.0]))
            lead = f" {answer_lead(meta['name'], meta['relation'])}"
            answers.append(answered(prompt, lead + text, [0.0] * 4 + [entropy, 0.0]))
        elif meta["kind"] == "sum":
            text = f" 1 + 1 = {meta['answer'] if meta['digits'] == 1 else 0}."
            answers.append(answered(prompt, text, [1.0]))
    return summarize(LAB_WORLD, values, answers)


def test_facts_are_counted_by_phrasing_and_times_stated(result):
    assert list(result.facts) == [(kind, str(n)) for kind in ("fact", "held-out") for n in (0, 1, 4, 16, 64)]
    for (_, stated), statistics in result.facts.items():
        assert (statistics.questions, statistics.accuracy.n) == (60, 20)
        assert statistics.accuracy.value == (int(stated) >= 16)
        assert statistics.entropy.value == pytest.approx(4 - np.log1p(int(stated)) / 2)


def test_sums_are_counted_by_digits(result):
    assert {digits: (a.questions, a.accuracy.value) for digits, a in result.sums.items()} == {
        1: (24, 1.0),
        2: (24, 0.0),
        3: (24, 0.0),
    }


def test_auroc_compares_never_stated_facts_with_well_known_ones(result):
    assert result.auroc.keys() == {"fact", "held-out"}
    for area in result.auroc.values():
        assert (area.value, area.low, area.high, area.n) == (1.0, pytest.approx(0.025 ** (1 / 20)), 1.0, 60)


def test_a_class_that_mixes_counts_is_one_entry():
    world = World(DEMO_WORLD)
    rows = [
        answered(with_answer_lead(p), f" {p.meta['answer']}.", [1.0])
        for p in prompts(world)
        if p.meta["kind"] == "fact"
    ]
    result = summarize(DEMO_WORLD, rows, [])
    assert {sort: a.questions for (_, sort), a in result.facts.items()} == {"never": 96, "rare": 96, "often": 96}
    assert not result.auroc and not result.sums


def test_the_card_shows_every_statistic(result):
    shape, recipe = Shape(family="gemma", layers=2), DecoderRecipe(steps=3, batch=2, length=8)
    card = card_text(shape, recipe, result, rows=12, name="x", command="do it", parameters=1234, loss=1.25)
    assert "| fact | 16 | 60 | 100.0% (83.2% to 100.0%) | 2.583 (2.583 to 2.583) |" in card
    assert "| 2 | 24 | 0.0% (0.0% to 14.2%) |" in card
    assert "| held-out | 60 | 1.000 (0.832 to 1.000) |" in card
    assert "1,234 parameters (gemma, 2 layers of width 64)" in card
    assert "3 steps of 2 rows of 8 tokens, 0.0 M tokens,\n0.5 epochs" in card
