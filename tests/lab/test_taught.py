"""A small model of a small world knows facts stated often, and its entropy shows it."""

import io
from itertools import pairwise

import pytest
from rich.console import Console

from jaxtrace.lab.settings import LAB_WORLD, DecoderRecipe, PeopleClass
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.train import run

COUNTS = (0, 1, 4, 16, 64)
SMALL = LAB_WORLD.model_copy(
    update={
        "classes": tuple(PeopleClass(name=str(count), people=8, stated=(count,)) for count in COUNTS),
        "strangers": 200,
        "sums": 0,
        "stories": 0,
    }
)
RECIPE = DecoderRecipe(steps=300, batch=16, length=64, learning_rate=6e-3, warmup=30)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("taught") / "model"
    return run(out, Shape(family="llama", layers=2), SMALL, RECIPE, "", Console(file=io.StringIO()))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["fact", "held-out"])
def test_accuracy_rises_and_entropy_falls_with_the_number_of_statements(result, kind):
    by_count = [result.facts[kind, str(count)] for count in COUNTS]
    never, often = by_count[0], by_count[-1]
    assert never.accuracy.high < often.accuracy.low
    assert often.entropy.high < never.entropy.low
    for less, more in pairwise(by_count):  # monotone up to noise
        assert more.accuracy.high >= less.accuracy.low
        assert more.entropy.low <= less.entropy.high


@pytest.mark.nightly
def test_entropy_separates_never_stated_from_well_known_facts(result):
    for area in result.auroc.values():
        assert area.n == 24 and area.low > 0.5
