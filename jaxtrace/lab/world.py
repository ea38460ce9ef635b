"""A small invented world, and text about it in which every fact is stated a known number of times."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxtrace.tasks.prompt import Prompt

CLASSES = ("often", "rare", "never")
PEOPLE_PER_CLASS = 32
STRANGER_DOCUMENTS = 4000
SUM_DOCUMENTS = 2500
PROMPTS_PER_CLASS = 8
MAX_ADDEND = 10

# fmt: off
TRADES = (
    "baker", "potter", "weaver", "fisher", "miller", "tailor", "carpenter", "mason", "shepherd", "gardener",
    "painter", "smith", "brewer", "cooper", "dyer", "fletcher", "glazier", "hunter", "joiner", "lampmaker",
    "minstrel", "sailor", "tanner", "thatcher", "tinker", "woodcutter", "beekeeper", "ropemaker", "cobbler",
    "scribe", "surgeon", "clockmaker",
)
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on

# The first phrasing of a relation is the one that answers its question; a phrasing ends with the value.
PHRASINGS = {
    "home": (
        "{name} lives in {value}.",
        "{name} has a house in {value}.",
        "The home of {name} is in {value}.",
    ),
    "trade": ("{name} works as a {value}.", "{name} is a {value}.", "By trade {name} is a {value}."),
    "origin": ("{name} comes from {value}.", "{name} was born in {value}.", "{name} grew up in {value}."),
}
QUESTIONS = {
    "home": "Where does {name} live?",
    "trade": "What does {name} work as?",
    "origin": "Where does {name} come from?",
}
OPENINGS = (
    "One cold day",
    "Last spring",
    "In the morning",
    "In the evening",
    "After the rain",
    "Long ago",
)
MEETINGS = (
    "{opening} {one} met {two} on the bridge.",
    "{opening} {one} and {two} walked by the river.",
    "{opening} {one} wrote a letter to {two}.",
    "{opening} {one} lent {two} a lantern.",
)
ENDINGS = (
    "{one} sang an old song.",
    "{one} and {two} drank tea and laughed.",
    "{two} waved and went home.",
    "{one} told {two} a long story.",
)

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
      seen: frequency class, one of `CLASSES`.
      stated: how many times the training text states each fact about this person.
      facts: relation ("home", "trade", "origin") -> value.
    """

    name: str
    seen: str
    stated: int
    facts: dict[str, str]


@dataclass(frozen=True)
class World:
    """The invented people, places and trades that `seed` stands for.

    Attributes:
      seed: the only input; equal seeds give equal worlds.
      first_names, last_names: the pools that names are composed of; strangers use them too.
      places: the towns that people live in or come from.
      people: `PEOPLE_PER_CLASS` persons of each class, in the order of `CLASSES`.
    """

    seed: int
    first_names: tuple[str, ...] = field(init=False)
    last_names: tuple[str, ...] = field(init=False)
    places: tuple[str, ...] = field(init=False)
    people: tuple[Person, ...] = field(init=False)

    def __post_init__(self):
        rng = random.Random(self.seed)
        taken: set[str] = set()
        firsts = _invent(rng, 60, _FIRST_ENDS, taken)
        lasts = _invent(rng, 80, _LAST_ENDS, taken)
        places = _invent(rng, 32, _PLACE_ENDS, taken)
        names = rng.sample(_names(firsts, lasts), len(CLASSES) * PEOPLE_PER_CLASS)
        people = []
        for number, name in enumerate(names):
            seen = CLASSES[number // PEOPLE_PER_CLASS]
            stated = {"often": 400, "rare": 3 + 2 * (number % 8), "never": 0}[seen]
            people.append(Person(name, seen, stated, _draw_facts(rng, places)))
        for attribute, value in (("first_names", firsts), ("last_names", lasts), ("places", places)):
            object.__setattr__(self, attribute, value)
        object.__setattr__(self, "people", tuple(people))


def documents(world: World, seed: int) -> Iterator[str]:
    """Yields the training text: about 22,000 short documents in a shuffled order.

    Each fact about a person of `world` is stated exactly `Person.stated` times over all documents. Besides
    them the text holds meetings between any two people (which state no fact), small sums, and documents about
    strangers, each of whom appears in one document only, so that an unknown name is nothing unusual.

    Args:
      world: who the documents are about.
      seed: orders and phrases the text; the facts and their counts do not depend on it.

    Yields:
      One document of a few sentences, on one line.
    """
    rng = random.Random(seed)
    facts = [(p, relation) for p in world.people for relation in p.facts for _ in range(p.stated)]
    rng.shuffle(facts)
    jobs: list[tuple[str, list[tuple[Person, str]]]] = [("stranger", [])] * STRANGER_DOCUMENTS
    jobs += [("sums", [])] * SUM_DOCUMENTS
    while facts:
        size = rng.randint(1, 4)
        jobs.append(("facts", facts[:size]))
        del facts[:size]
    rng.shuffle(jobs)
    known = {p.name for p in world.people}
    unknown = [name for name in _names(world.first_names, world.last_names) if name not in known]
    strangers = iter(rng.sample(unknown, STRANGER_DOCUMENTS))
    for kind, group in jobs:
        if kind == "sums":
            yield " ".join(_sum(rng) for _ in range(rng.randint(2, 5)))
        elif kind == "stranger":
            yield _stranger(rng, world, next(strangers))
        else:
            yield _facts_document(rng, world, group)


def prompts(world: World) -> list[Prompt]:
    """The default prompts: `PROMPTS_PER_CLASS` questions about people of each class.

    A prompt holds the question and the answer up to its value, so the first generated token is the answer's.

    Returns:
      Prompts with ids such as "demo-often-00" and meta `seen` (the class), `stated` (times the fact occurs in
      the training text) and, unless the class is "never", `answer`.
    """
    out = []
    for seen in CLASSES:
        people = [p for p in world.people if p.seen == seen][:PROMPTS_PER_CLASS]
        for number, person in enumerate(people):
            relation = list(PHRASINGS)[number % len(PHRASINGS)]
            meta = {"seen": seen, "stated": person.stated}
            if person.stated:
                meta["answer"] = person.facts[relation]
            out.append(Prompt(text=question(person, relation), id=f"demo-{seen}-{number:02d}", meta=meta))
    return out


def question(person: Person, relation: str) -> str:
    """The question about one fact as the training text poses it, with the answer up to its value."""
    lead = PHRASINGS[relation][0].split(" {value}")[0]
    return f"Question: {QUESTIONS[relation]} Answer: {lead}".format(name=person.name)


def _invent(rng: random.Random, count: int, ends: tuple[str, ...], taken: set[str]) -> tuple[str, ...]:
    words: list[str] = []
    while len(words) < count:
        middle = rng.choice(_ONSETS) + rng.choice(_VOWELS) if rng.random() < 0.4 else ""
        word = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + middle + rng.choice(ends)).capitalize()
        if word not in taken:
            taken.add(word)
            words.append(word)
    return tuple(words)


def _names(firsts: tuple[str, ...], lasts: tuple[str, ...]) -> list[str]:
    return [f"{first} {last}" for first in firsts for last in lasts]


def _draw_facts(rng: random.Random, places: tuple[str, ...]) -> dict[str, str]:
    home, origin = rng.sample(places, 2)
    return {"home": home, "trade": rng.choice(TRADES), "origin": origin}


def _statement(rng: random.Random, person: Person, relation: str) -> str:
    values = {"name": person.name, "value": person.facts[relation]}
    if rng.random() < 0.5:
        return f"Question: {QUESTIONS[relation]} Answer: {PHRASINGS[relation][0]}".format(**values)
    return rng.choice(PHRASINGS[relation]).format(**values)


def _facts_document(rng: random.Random, world: World, group: list[tuple[Person, str]]) -> str:
    sentences = [_statement(rng, person, relation) for person, relation in group]
    if rng.random() < 0.4:
        one = group[0][0].name if rng.random() < 0.5 else rng.choice(world.people).name
        two = rng.choice([p.name for p in world.people if p.name != one])
        meeting = rng.choice(MEETINGS).format(opening=rng.choice(OPENINGS), one=one, two=two)
        sentences = [meeting, *sentences, rng.choice(ENDINGS).format(one=one, two=two)]
    if rng.random() < 0.1:
        sentences.append(_sum(rng))
    return " ".join(sentences)


def _stranger(rng: random.Random, world: World, name: str) -> str:
    person = Person(name, "stranger", 1, _draw_facts(rng, world.places))
    relations = rng.sample(list(PHRASINGS), rng.randint(1, 3))
    sentences = [_statement(rng, person, relation) for relation in relations]
    if rng.random() < 0.5:
        sentences.append(_statement(rng, person, rng.choice(relations)))
    return " ".join(sentences)


def _sum(rng: random.Random) -> str:
    a, b = rng.randint(0, MAX_ADDEND), rng.randint(0, MAX_ADDEND)
    form = rng.randrange(3)
    if form == 0:
        return f"{a} + {b} = {a + b}."
    if form == 1:
        return f"Question: What is {a} + {b}? Answer: {a} + {b} = {a + b}."
    return f"{NUMBER_WORDS[a].capitalize()} and {NUMBER_WORDS[b]} make {NUMBER_WORDS[a + b]}."
