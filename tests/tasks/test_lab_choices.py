import json

import pytest

from jaxtrace import PromptError
from jaxtrace.lab.settings import DEMO_WORLD
from jaxtrace.lab.world import World
from jaxtrace.tasks import load_task


def test_choices_of_the_demo_world():
    world = World(DEMO_WORLD)
    facts = {(person.name, relation): person for person in world.people for relation in person.facts}
    prompts = load_task("lab-choices")
    assert len(prompts) == sum(person.stated[relation] > 0 for (_, relation), person in facts.items())
    for prompt in prompts:
        choices, relation = prompt.meta["choices"], prompt.meta["relation"]
        right = choices["ABCD".index(prompt.meta["answer"])]
        named = [person for (name, of), person in facts.items() if of == relation and f"{name} " in prompt.text]
        assert any(person.facts[relation] == right and person.stated[relation] > 0 for person in named)
        assert len(choices) == 4 == len({choice[0] for choice in choices})
        assert {*choices} <= {person.facts[relation] for person in world.people}
        assert prompt.text.startswith("Question: ") and not prompt.text.endswith((" ", "."))
    letters = [prompt.meta["answer"] for prompt in prompts]
    assert {*letters} == {*"ABCD"} and load_task("lab-choices", limit=3) == prompts[:3]


def test_no_world(tmp_path):
    (tmp_path / "world.json").write_text(json.dumps({"seed": 0}))
    with pytest.raises(PromptError, match="not the settings of a world"):
        load_task("lab-choices", tmp_path)
