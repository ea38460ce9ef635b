"""A small model of a small world knows what it was told often, and its entropy says so."""

import io
from itertools import pairwise

import pytest
from rich.console import Console

from jaxtrace.lab.settings import LAB_WORLD, PeopleClass
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.train import run
from jaxtrace.lab.training import Recipe

COUNTS = (0, 1, 4, 16, 64)
SMALL = LAB_WORLD.model_copy(
    update={
        "classes": tuple(PeopleClass(name=str(count), people=8, stated=(count,)) for count in COUNTS),
        "strangers": 200,
        "sums": 0,
        "stories": 0,
    }
)
RECIPE = Recipe(steps=300, batch=16, length=64, learning_rate=6e-3, warmup=30)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("taught") / "model"
    return run(out, Shape(family="llama", layers=2), SMALL, RECIPE, "", Console(file=io.StringIO()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fact", "held-out"])
def test_the_oftener_a_fact_was_stated_the_better_it_is_known(found, kind):
    by_count = [found.facts[kind, str(count)] for count in COUNTS]
    never, often = by_count[0], by_count[-1]
    assert never.right.high < often.right.low
    assert often.entropy.high < never.entropy.low
    for less, more in pairwise(by_count):  # monotone up to noise
        assert more.right.high >= less.right.low
        assert more.entropy.low <= less.entropy.high


@pytest.mark.slow
def test_never_stated_facts_are_told_by_the_entropy_of_their_answers(found):
    for area in found.told_apart.values():
        assert area.n == 24 and area.low > 0.5
