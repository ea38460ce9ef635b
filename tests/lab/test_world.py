"""Worlds and texts: determinism, counts of statements, held-out phrasings, right sums."""

import hashlib
import re
from collections import Counter, defaultdict
from itertools import chain, islice

import pytest

from jaxtrace.lab.documents import documents
from jaxtrace.lab.phrases import NUMBER_WORDS, PHRASINGS, QUESTIONS
from jaxtrace.lab.settings import DEMO_WORLD, LAB_WORLD, PeopleClass
from jaxtrace.lab.world import World

SETTINGS = {"demo": DEMO_WORLD, "lab": LAB_WORLD}


@pytest.fixture(scope="module", params=SETTINGS)
def world(request):
    return World(SETTINGS[request.param])


@pytest.fixture(scope="module")
def text(world):
    return "\n".join(documents(world, 1))


def test_the_demo_text_is_the_embedded_models_training_text():
    text = "\n".join(documents(World(DEMO_WORLD), 1))
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "9eee867747c2335a81f15d9d0992b373c387914483b963289b230d2de12f602f"
    )


def test_equal_settings_give_equal_worlds_and_texts(world, text):
    assert World(world.settings) == world
    assert text.startswith("\n".join(islice(documents(World(world.settings), 1), 200)))
    assert World(world.settings.model_copy(update={"seed": 1})).people != world.people
    assert next(documents(world, 2)) != text.split("\n", 1)[0]


def test_every_class_has_its_people_and_names_are_unique(world):
    assert Counter(p.group for p in world.people) == {group.name: group.people for group in world.settings.classes}
    assert len({p.name for p in world.people}) == len(world.people)


def test_facts_of_the_lab_are_stated_0_1_4_16_and_64_times():
    people = World(LAB_WORLD).people
    assert Counter(chain(*(p.stated.values() for p in people))) == dict.fromkeys((0, 1, 4, 16, 64), 60)
    assert all(LAB_WORLD.frequency(count) == p.group for p in people for count in p.stated.values())
    crossed = Counter((p.held_out, p.group) for p in people)
    assert len(crossed) == 15 and max(crossed.values()) - min(crossed.values()) <= 1


def test_by_fact_gives_the_facts_of_a_person_different_counts():
    mixed = LAB_WORLD.model_copy(
        update={"classes": (PeopleClass(name="all", people=30, stated=(0, 4, 64)),), "by_fact": True}
    )
    assert [set(p.stated.values()) for p in World(mixed).people] == [{0, 4, 64}] * 30
    assert mixed.frequency(4) == "4"


def test_each_fact_is_stated_as_often_as_its_count(world, text):
    stated = Counter()
    for relation, phrasings in PHRASINGS.items():
        for phrasing in phrasings:
            pattern = phrasing.replace(".", r"\.").format(name=r"([A-Z]\w+ [A-Z]\w+)", value=r"(\w+)")
            statements = re.findall(rf"(?:^|(?<=[.:] )){pattern}", text, re.MULTILINE)
            stated.update((name, relation, value) for name, value in statements)
    by_name = Counter()
    for (name, _, _), count in stated.items():
        by_name[name] += count
    for person in world.people:
        for relation, value in person.facts.items():
            assert stated[person.name, relation, value] == person.stated[relation]
        assert by_name[person.name] == sum(person.stated.values())


def test_a_held_out_phrasing_is_asked_of_others_only(world, text):
    asked = defaultdict(set)
    for relation, questions in QUESTIONS.items():
        for form, question in enumerate(questions):
            for name in re.findall(question.replace("?", r"\?").format(name=r"([A-Z]\w+ [A-Z]\w+)"), text):
                asked[relation, form].add(name)
    forms = world.settings.question_forms
    assert set(asked) == {(relation, form) for relation in QUESTIONS for form in range(forms)}
    for person in world.people:
        assert (person.held_out is None) == (forms == 1)
        if person.held_out is not None:
            for relation in person.facts:
                assert person.name not in asked[relation, person.held_out]
                if person.stated[relation] == 64:
                    assert person.name in asked[relation, (person.held_out + 1) % forms]


def test_people_without_stated_facts_still_occur(world, text):
    for person in world.people:
        assert person.name in text
        if not any(person.stated.values()):
            assert f"Answer: {person.name}" not in text


def test_sums_are_right_and_cover_every_size(world, text):
    digits = [tuple(map(int, numbers)) for numbers in re.findall(r"(\d+) \+ (\d+) = (\d+)\.", text)]
    words = re.findall(r"([A-Z]?[a-z]+) and ([a-z]+) make ([a-z]+)\.", text)
    assert len(digits) > 1000 and len(words) > 300
    assert all(a + b == c for a, b, c in digits)
    number = {word: n for n, word in enumerate(NUMBER_WORDS)}
    assert all(number[a.lower()] + number[b] == number[c] for a, b, c in words)
    pairs = {(a, b) for a, b, _ in digits} | {(number[a.lower()], number[b]) for a, b, _ in words}
    for (least, largest), asked in zip(world.settings.addends, world.asked_sums, strict=True):
        assert any(least <= a <= largest and least <= b <= largest for a, b in pairs)
        assert len(set(asked)) == world.settings.asked_sums
        assert all(least <= a <= largest and least <= b <= largest for a, b in asked)
        assert not (world.settings.withhold_sums and pairs & set(asked))


def test_a_question_of_the_lab_ends_its_document():
    asked = [document for document in documents(World(LAB_WORLD), 1) if "Question:" in document]
    assert len(asked) > 3000
    assert all(re.fullmatch(r"Question: [^?]+\? Answer: [^.?]+\.", document) for document in asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_names": 2, "last_names": 2}, "4 names are too few"),
        ({"addends": ((5, 3),)}, "addends of 5 to 3"),
        ({"addends": ((0, 3),)}, "too few sums"),
        ({"question_forms": 4}, "less than or equal to 3"),
        ({"people": 3}, "Extra inputs"),
        ({"classes": ({"name": "all", "people": 5, "stated": (-1,)},)}, "classes.0.stated.0"),
        ({"classes": ({"name": "one", "people": 1, "stated": (3,)},)}, "meets nobody"),
    ],
)
def test_impossible_worlds_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        type(LAB_WORLD).model_validate(LAB_WORLD.model_dump() | changes)
