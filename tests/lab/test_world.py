"""The text world keeps its promises: determinism, counts of statements, right sums."""

import re
from collections import Counter
from itertools import islice

import pytest

from jaxtrace.lab.world import CLASSES, NUMBER_WORDS, PEOPLE_PER_CLASS, PHRASINGS, World, documents, prompts


@pytest.fixture(scope="module")
def world():
    return World(0)


@pytest.fixture(scope="module")
def text(world):
    return "\n".join(documents(world, 1))


def test_equal_seeds_give_equal_worlds_and_texts(world, text):
    assert World(0) == world
    assert text.startswith("\n".join(islice(documents(World(0), 1), 200)))
    assert World(1) != world
    assert next(documents(world, 2)) != text.split("\n", 1)[0]


def test_every_class_has_its_people_and_names_are_unique(world):
    assert Counter(p.seen for p in world.people) == dict.fromkeys(CLASSES, PEOPLE_PER_CLASS)
    assert len({p.name for p in world.people}) == len(world.people)


def test_each_fact_is_stated_as_often_as_promised(world, text):
    stated = Counter()
    for relation, phrasings in PHRASINGS.items():
        for phrasing in phrasings:
            pattern = phrasing.replace(".", r"\.").format(name=r"([A-Z]\w+ [A-Z]\w+)", value=r"(\w+)")
            found = re.findall(rf"(?:^|(?<=[.:] )){pattern}", text, re.MULTILINE)
            stated.update((name, relation, value) for name, value in found)
    for person in world.people:
        for relation, value in person.facts.items():
            assert stated[person.name, relation, value] == person.stated
        told = sum(count for (name, _, _), count in stated.items() if name == person.name)
        assert told == person.stated * len(person.facts)


def test_never_people_occur_but_nothing_is_said_of_them(world, text):
    leads = [form.split(" {value}")[0] for form in sum(PHRASINGS.values(), ())]
    for person in world.people:
        if person.seen == "never":
            assert text.count(person.name) > 0
            assert not any(lead.format(name=person.name) in text for lead in leads)
            assert f"Answer: {person.name}" not in text


def test_sums_are_right(text):
    digits = re.findall(r"(\d+) \+ (\d+) = (\d+)\.", text)
    words = re.findall(r"([A-Z]?[a-z]+) and ([a-z]+) make ([a-z]+)\.", text)
    assert len(digits) > 1000 and len(words) > 1000
    assert all(int(a) + int(b) == int(c) for a, b, c in digits)
    number = {word: n for n, word in enumerate(NUMBER_WORDS)}
    assert all(number[a.lower()] + number[b] == number[c] for a, b, c in words)


def test_prompts_ask_what_the_text_asks(world, text):
    asked = prompts(world)
    assert Counter(p.meta["seen"] for p in asked) == dict.fromkeys(CLASSES, 8)
    assert [p.id for p in asked[:2]] == ["demo-often-00", "demo-often-01"]
    assert len({p.id for p in asked}) == len(asked)
    for prompt in asked:
        if prompt.meta["seen"] == "often":
            assert f"{prompt.text} {prompt.meta['answer']}." in text
        if prompt.meta["seen"] == "never":
            assert "answer" not in prompt.meta
            assert prompt.text not in text
