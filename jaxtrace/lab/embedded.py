"""The model that ships inside the package: `jaxtrace trace demo`."""

from importlib.resources import files
from pathlib import Path

from jaxtrace.lab.phrases import PHRASINGS, lead_of, question_of
from jaxtrace.lab.settings import DEMO_WORLD
from jaxtrace.lab.world import World
from jaxtrace.tasks.prompt import Prompt

PROMPTS_PER_CLASS = 8


def demo_path() -> Path:
    """The folder of the embedded checkpoint, in Hugging Face's layout."""
    return Path(str(files("jaxtrace.lab") / "demo"))


def demo_prompts() -> list[Prompt]:
    """The default prompts: `PROMPTS_PER_CLASS` questions about people of each class of the demo's world.

    A prompt holds the question and the answer up to its value, so the first generated token is the answer's.

    Returns:
      Prompts with ids such as "demo-often-00" and meta `seen` (the class), `stated` (times the fact occurs in the
      training text) and, unless the class is "never", `answer`.
    """
    world, out = World(DEMO_WORLD), []
    for group in DEMO_WORLD.classes:
        people = [p for p in world.people if p.seen == group.name][:PROMPTS_PER_CLASS]
        for number, person in enumerate(people):
            relation = list(PHRASINGS)[number % len(PHRASINGS)]
            meta = {"seen": person.seen, "stated": person.stated[relation]}
            if person.stated[relation]:
                meta["answer"] = person.facts[relation]
            text = f"{question_of(person.name, relation, 0)} {lead_of(person.name, relation)}"
            out.append(Prompt(text=text, id=f"demo-{person.seen}-{number:02d}", meta=meta))
    return out
