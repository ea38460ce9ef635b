from jaxtrace.lab.phrases import question_text
from jaxtrace.lab.settings import DEMO_WORLD, LAB_WORLD
from jaxtrace.lab.world import World
from jaxtrace.tasks import load_task


def test_every_stated_fact_has_four_choices_with_different_first_letters():
    world = World(DEMO_WORLD)
    facts = {(person.name, relation): person for person in world.people for relation in person.facts}
    prompts = load_task("lab-choices")
    assert len(prompts) == sum(person.stated[relation] > 0 for (_, relation), person in facts.items())
    for prompt in prompts:
        choices, relation = prompt.meta["choices"], prompt.meta["relation"]
        right = choices["ABCD".index(prompt.meta["answer"])]
        (person,) = [p for (name, asked), p in facts.items() if asked == relation and f"{name} " in prompt.text]
        assert person.facts[relation] == right and person.stated[relation] > 0
        assert len(choices) == 4 == len({choice[0] for choice in choices})
        assert {*choices} <= {person.facts[relation] for person in world.people}
        assert prompt.text.startswith("Question: ") and not prompt.text.endswith((" ", "."))
    letters = [prompt.meta["answer"] for prompt in prompts]
    assert {*letters} == {*"ABCD"} and load_task("lab-choices", limit=3) == prompts[:3]


def questions(prompts):
    return [prompt.text[: prompt.text.index("Answer:") + len("Answer:")] for prompt in prompts]


def test_no_choice_question_uses_a_held_out_phrasing(tmp_path):
    (tmp_path / "world.json").write_text(LAB_WORLD.model_dump_json())
    questions_of_lab = load_task("lab", tmp_path)
    stated = {p.text for p in questions_of_lab if p.meta["kind"] == "fact" and p.meta["stated"] > 0}
    held_out = {p.text for p in questions_of_lab if p.meta["kind"] == "held-out"}
    asked = questions(load_task("lab-choices", tmp_path))
    assert len(asked) == len({*asked}) == 240 and {*asked} == stated and not stated & held_out


def test_the_demo_world_is_asked_in_its_only_phrasing():
    people = World(DEMO_WORLD).people
    expected = {question_text(p.name, relation, 0) for p in people for relation in p.facts if p.stated[relation]}
    assert {*questions(load_task("lab-choices"))} == expected
