"""Questions about a world: known sorts in a mixed order, with true answers."""

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


def test_every_fact_is_asked_in_a_phrasing_of_the_text_and_in_a_held_out_one(world, asked):
    text = "\n".join(documents(world, 1))
    assert Counter(p.meta["kind"] for p in asked) == {"fact": 300, "held-out": 300, "sum": 72, "story": 60}
    for prompt in asked:
        if prompt.meta["kind"] == "held-out":
            assert prompt.meta["held_out"] and prompt.text not in text
        if prompt.meta["kind"] == "fact" and prompt.meta["stated"] == 64:
            assert not prompt.meta["held_out"] and f"{prompt.text} {prompt.meta['name']}" in text


def test_the_first_prompts_cover_every_sort(asked):
    sorts = [(p.meta["kind"], p.meta.get("stated"), p.meta.get("digits")) for p in asked]
    assert len(set(sorts[:14])) == len(set(sorts)) == 14
    assert sorts[14:28] == sorts[:14]


def test_order_and_ids_are_reproducible(world, asked):
    assert prompts(World(LAB_WORLD)) == asked
    assert [p.id for p in asked[:2]] == ["lab-fact-0000", "lab-fact-0060"]
    assert len({p.id for p in asked}) == len(asked)


def test_answers_are_true_in_the_world(world, asked):
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


def test_a_directory_or_its_world_json_names_the_world(tmp_path, asked):
    (tmp_path / "world.json").write_text(LAB_WORLD.model_dump_json())
    assert load_task("lab", tmp_path) == load_task("lab", tmp_path / "world.json") == asked
    assert load_task("lab", tmp_path, 3) == asked[:3]


def test_the_default_world_is_the_embedded_models():
    questions = load_task("lab")
    assert questions == prompts(World(DEMO_WORLD))
    assert Counter(p.meta["kind"] for p in questions) == {"fact": 288, "sum": 24, "story": 60}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file; name a directory"), ("{", "not the settings of a world"), ('{"seed": -1}', "seed: ")],
)
def test_a_file_that_describes_no_world_is_one_line(content, message, tmp_path):
    if content is not None:
        (tmp_path / "world.json").write_text(content)
    with pytest.raises(PromptError, match=message) as error:
        load_task("lab", tmp_path)
    assert "\n" not in str(error.value)
