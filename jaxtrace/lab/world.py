"""A small invented world: its people, the facts about them, and the sums that are asked."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from jaxtrace.lab.phrases import PHRASINGS, TRADES
from jaxtrace.lab.settings import WorldSettings

_ONSETS = (*"bdfghklmnprstvwz", "br", "dr", "st", "th", "tr")
_VOWELS = "aeiou"
_FIRST_ENDS = ("ra", "lo", "na", "mi", "ven", "lis", "dor", "sa")
_LAST_ENDS = ("dan", "mark", "wick", "ston", "rell", "more", "vin", "lock")
_PLACE_ENDS = ("rn", "sk", "nt", "lm", "rth", "mble", "ford", "haven")


@dataclass(frozen=True)
class Person:
    """An inhabitant of a world.

    Attributes:
      group: name of the person's class.
      facts: value of each relation ("home", "trade", "origin").
      stated: number of times the text states the fact, for each relation.
      held_out: phrasing of a question that the text uses for no fact of this person, or None.
    """

    name: str
    group: str
    facts: dict[str, str]
    stated: dict[str, int]
    held_out: int | None


@dataclass(frozen=True)
class World:
    """People, places and sums, drawn from settings.

    Attributes:
      places: towns that people live in or come from.
      people: inhabitants, class by class.
      asked_sums: pairs of addends that the task asks, for each size of sums.
    """

    settings: WorldSettings
    first_names: tuple[str, ...] = field(init=False)
    last_names: tuple[str, ...] = field(init=False)
    places: tuple[str, ...] = field(init=False)
    people: tuple[Person, ...] = field(init=False)
    asked_sums: tuple[tuple[tuple[int, int], ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        rng = random.Random(settings.seed)
        used: set[str] = set()
        first_names = _invent_words(rng, settings.first_names, _FIRST_ENDS, used)
        last_names = _invent_words(rng, settings.last_names, _LAST_ENDS, used)
        places = _invent_words(rng, settings.places, _PLACE_ENDS, used)
        groups = [group for group in settings.classes for _ in range(group.people)]
        names = rng.sample(full_names(first_names, last_names), len(groups))
        people = []
        for number, (name, group) in enumerate(zip(names, groups, strict=True)):
            counts = {
                relation: group.stated[(number + index * settings.by_fact) % len(group.stated)]
                for index, relation in enumerate(PHRASINGS)
            }
            held_out = number % settings.question_forms if settings.question_forms > 1 else None
            people.append(Person(name, group.name, draw_facts(rng, places), counts, held_out))
        drawn = {"first_names": first_names, "last_names": last_names, "places": places, "people": tuple(people)}
        vars(self).update(drawn, asked_sums=_draw_sums(settings))  # the class is frozen

    def known_form(self, person: Person) -> int:
        """Return a phrasing of questions that is not held out for a person."""
        return 0 if person.held_out is None else (person.held_out + 1) % self.settings.question_forms


def full_names(first_names: tuple[str, ...], last_names: tuple[str, ...]) -> list[str]:
    """Return every combination of a first and a last name."""
    return [f"{first} {last}" for first in first_names for last in last_names]


def draw_facts(rng: random.Random, places: tuple[str, ...]) -> dict[str, str]:
    """Draw the home, trade and origin of a person."""
    home, origin = rng.sample(places, 2)
    return {"home": home, "trade": rng.choice(TRADES), "origin": origin}


def _invent_words(rng: random.Random, count: int, ends: tuple[str, ...], used: set[str]) -> tuple[str, ...]:
    """Draw `count` new words and add them to `used`."""
    words: list[str] = []
    while len(words) < count:
        middle = rng.choice(_ONSETS) + rng.choice(_VOWELS) if rng.random() < 0.4 else ""
        word = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + middle + rng.choice(ends)).capitalize()
        if word not in used:
            used.add(word)
            words.append(word)
    return tuple(words)


def _draw_sums(settings: WorldSettings) -> tuple[tuple[tuple[int, int], ...], ...]:
    rng = random.Random(f"sums {settings.seed}")
    drawn = []
    for least, largest in settings.addends:
        width = largest - least + 1
        indices = rng.sample(range(width * width), settings.asked_sums)
        drawn.append(tuple((least + index // width, least + index % width) for index in indices))
    return tuple(drawn)
