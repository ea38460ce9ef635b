"""Questions about a world: every one of a known sort, in a mixed order, with an answer that is true."""

from collections import Counter

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.lab.documents import documents
from jaxtrace.lab.settings import DEMO_WORLD, LAB_WORLD
from jaxtrace.lab.tasks import prompts
from jaxtrace.lab.world import World
from jaxtrace.tasks import load_task


@pytest.fixture(scope="module")
def world():
    return World(LAB_WORLD)


@pytest.fixture(scope="module")
def asked(world):
    return prompts(world)


def test_every_fact_is_asked_in_both_phrasings_of_which_the_text_has_one(world, asked):
    text = "\n".join(documents(world, 1))
    assert Counter(p.meta["kind"] for p in asked) == {"fact": 300, "held-out": 300, "sum": 72, "story": 60}
    for prompt in asked:
        if prompt.meta["kind"] == "held-out":
            assert prompt.meta["held_out"] and prompt.text not in text
        if prompt.meta["kind"] == "fact" and prompt.meta["stated"] == 64:
            assert not prompt.meta["held_out"] and f"{prompt.text} {prompt.meta['name']}" in text


def test_the_first_few_are_of_every_sort(asked):
    sorts = [(p.meta["kind"], p.meta.get("stated"), p.meta.get("digits")) for p in asked]
    assert len(set(sorts[:14])) == len(set(sorts)) == 14
    assert sorts[14:28] == sorts[:14]


def test_the_order_and_the_ids_are_reproducible(world, asked):
    assert prompts(World(LAB_WORLD)) == asked
    assert [p.id for p in asked[:2]] == ["lab-fact-0000", "lab-fact-0060"]
    assert len({p.id for p in asked}) == len(asked)


def test_answers_are_those_of_the_world(world, asked):
    people = {person.name: person for person in world.people}
    for prompt in asked:
        meta = prompt.meta
        if meta["kind"] in ("fact", "held-out"):
            person = people[meta["name"]]
            assert meta["answer"] == person.facts[meta["relation"]]
            assert meta["stated"] == person.stated[meta["relation"]]
        if meta["kind"] == "sum":
            a, b = map(int, prompt.text.removeprefix("Question: What is ").removesuffix("? Answer:").split(" + "))
            assert int(meta["answer"]) == a + b
            assert meta["digits"] == len(str(max(a, b)))


def test_a_directory_or_its_file_says_which_world(tmp_path, asked):
    (tmp_path / "world.json").write_text(LAB_WORLD.model_dump_json())
    assert load_task("lab", tmp_path) == load_task("lab", tmp_path / "world.json") == asked
    assert load_task("lab", tmp_path, 3) == asked[:3]


def test_without_one_it_is_the_embedded_model_s():
    asked = load_task("lab")
    assert asked == prompts(World(DEMO_WORLD))
    assert Counter(p.meta["kind"] for p in asked) == {"fact": 288, "sum": 24, "story": 60}


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file; name a directory"), ("{", "not the settings of a world"), ('{"seed": -1}', "seed: ")],
)
def test_what_is_no_world_is_one_line(content, said, tmp_path):
    if content is not None:
        (tmp_path / "world.json").write_text(content)
    with pytest.raises(PromptError, match=said) as caught:
        load_task("lab", tmp_path)
    assert "\n" not in str(caught.value)
