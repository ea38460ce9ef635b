"""Writes the default prompts of the embedded model: `python -m jaxtrace.lab.demo_prompts > FILE`."""

import json

from jaxtrace.lab.phrases import PHRASINGS, answer_lead, question_text
from jaxtrace.lab.settings import DEMO_WORLD
from jaxtrace.lab.world import World
from jaxtrace.prompts import Prompt

PROMPTS_PER_CLASS = 8


def make_demo_prompts() -> list[Prompt]:
    """Return `PROMPTS_PER_CLASS` questions about people of each class of the demo's world."""
    world, prompts = World(DEMO_WORLD), []
    for group in DEMO_WORLD.classes:
        people = [person for person in world.people if person.group == group.name][:PROMPTS_PER_CLASS]
        for number, person in enumerate(people):
            relation = list(PHRASINGS)[number % len(PHRASINGS)]
            meta = {"seen": person.group, "stated": person.stated[relation]}
            if person.stated[relation]:
                meta["answer"] = person.facts[relation]
            text = f"{question_text(person.name, relation, 0)} {answer_lead(person.name, relation)}"
            prompts.append(Prompt(text=text, id=f"demo-{person.group}-{number:02d}", meta=meta))
    return prompts


if __name__ == "__main__":
    for prompt in make_demo_prompts():
        print(json.dumps({"id": prompt.id, "text": prompt.text, "meta": dict(prompt.meta)}, ensure_ascii=False))
