"""A small invented world: its people, and what is true of them and of sums."""

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
    """One inhabitant.

    Attributes:
      name: first and last name.
      seen: name of the class.
      facts: relation ("home", "trade", "origin") → value.
      stated: relation → how many times the text states the fact.
      held_out: the phrasing of a question that the text uses for no fact of this person; None for none.
    """

    name: str
    seen: str
    facts: dict[str, str]
    stated: dict[str, int]
    held_out: int | None


@dataclass(frozen=True)
class World:
    """The invented people, places, trades and sums that some settings stand for.

    Attributes:
      settings: the only input.
      first_names, last_names: the pools that names are composed of; strangers use them too.
      places: the towns that people live in or come from.
      people: in the order of their classes.
      asked_sums: for each size, the pairs of addends that are asked.
    """

    settings: WorldSettings
    first_names: tuple[str, ...] = field(init=False)
    last_names: tuple[str, ...] = field(init=False)
    places: tuple[str, ...] = field(init=False)
    people: tuple[Person, ...] = field(init=False)
    asked_sums: tuple[tuple[tuple[int, int], ...], ...] = field(init=False)

    def __post_init__(self):
        settings = self.settings
        rng = random.Random(settings.seed)
        taken: set[str] = set()
        firsts = _invent(rng, settings.first_names, _FIRST_ENDS, taken)
        lasts = _invent(rng, settings.last_names, _LAST_ENDS, taken)
        places = _invent(rng, settings.places, _PLACE_ENDS, taken)
        classes = [group for group in settings.classes for _ in range(group.people)]
        names = rng.sample(names_of(firsts, lasts), len(classes))
        people = []
        for number, (name, group) in enumerate(zip(names, classes, strict=True)):
            counts = {
                relation: group.stated[(number + place * settings.by_fact) % len(group.stated)]
                for place, relation in enumerate(PHRASINGS)
            }
            held_out = number % settings.question_forms if settings.question_forms > 1 else None
            people.append(Person(name, group.name, draw_facts(rng, places), counts, held_out))
        for attribute, value in (
            ("first_names", firsts),
            ("last_names", lasts),
            ("places", places),
            ("people", tuple(people)),
            ("asked_sums", _draw_sums(settings)),
        ):
            object.__setattr__(self, attribute, value)

    def known_form(self, person: Person) -> int:
        """A phrasing of questions that is not held out for a person."""
        return 0 if person.held_out is None else (person.held_out + 1) % self.settings.question_forms


def names_of(firsts: tuple[str, ...], lasts: tuple[str, ...]) -> list[str]:
    """Every name that the pools can make."""
    return [f"{first} {last}" for first in firsts for last in lasts]


def draw_facts(rng: random.Random, places: tuple[str, ...]) -> dict[str, str]:
    """Somebody's home, trade and origin."""
    home, origin = rng.sample(places, 2)
    return {"home": home, "trade": rng.choice(TRADES), "origin": origin}


def _invent(rng: random.Random, count: int, ends: tuple[str, ...], taken: set[str]) -> tuple[str, ...]:
    words: list[str] = []
    while len(words) < count:
        middle = rng.choice(_ONSETS) + rng.choice(_VOWELS) if rng.random() < 0.4 else ""
        word = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + middle + rng.choice(ends)).capitalize()
        if word not in taken:
            taken.add(word)
            words.append(word)
    return tuple(words)


def _draw_sums(settings: WorldSettings) -> tuple[tuple[tuple[int, int], ...], ...]:
    rng = random.Random(f"sums {settings.seed}")
    drawn = []
    for least, largest in settings.addends:
        width = largest - least + 1
        places = rng.sample(range(width * width), settings.asked_sums)
        drawn.append(tuple((least + place // width, least + place % width) for place in places))
    return tuple(drawn)
