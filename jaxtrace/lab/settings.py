"""What worlds are made of, as data: the embedded model's, and the one that `jaxtrace lab train` teaches."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jaxtrace.lab.phrases import QUESTIONS

FORMS = min(map(len, QUESTIONS.values()))


class PeopleClass(BaseModel):
    """People whose facts are stated equally often, or in the same cycle of counts.

    Attributes:
      name: of the class.
      people: how many.
      stated: how often the text states a fact; the n-th person has the n-th count, and so on round and round.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    people: int = Field(ge=1)
    stated: tuple[int, ...] = Field(min_length=1)


class WorldSettings(BaseModel):
    """A world and the text about it; equal settings give equal worlds and texts. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, description="of names, facts and asked sums")
    classes: tuple[PeopleClass, ...] = Field(min_length=1, description="who lives there")
    by_fact: bool = Field(description="a person's facts have different counts, each the next of the cycle")
    question_forms: int = Field(
        ge=1, le=FORMS, description="phrasings of a question; one of several is held out for each fact"
    )
    first_names: int = Field(default=60, ge=2, le=400)
    last_names: int = Field(default=80, ge=2, le=400)
    places: int = Field(default=32, ge=2, le=400)
    strangers: int = Field(ge=0, description="documents about people who occur in no other")
    statements_per_document: int = Field(ge=1, description="at most")
    meetings: float = Field(ge=0, le=1, description="probability that a document of facts tells of a meeting too")
    passing_sums: float = Field(ge=0, le=1, description="probability that it ends in a sum")
    repeats: float = Field(ge=0, le=1, description="probability that a stranger's fact is told twice")
    sums: int = Field(ge=0, description="documents of sums")
    sums_per_document: tuple[int, int] = Field(description="fewest and most")
    addends: tuple[tuple[int, int], ...] = Field(min_length=1, description="(least, largest), for each size of sums")
    asked_sums: int = Field(default=24, ge=1, description="of each size, in the task")
    withhold_sums: bool = Field(description="the text holds none of the sums that are asked")
    stories: int = Field(ge=0, description="documents that tell a story")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names, people = self.first_names * self.last_names, sum(group.people for group in self.classes)
        if names < people + self.strangers:
            raise ValueError(f"{names} names are too few for {people} people and {self.strangers} strangers")
        if people < 2:
            raise ValueError("one person meets nobody; give two or more")
        if any(count < 0 for group in self.classes for count in group.stated):
            raise ValueError("a fact cannot be stated less than 0 times")
        for least, largest in self.addends:
            pairs = (largest - least + 1) ** 2
            if not 0 <= least <= largest or pairs < 2 * self.asked_sums:
                raise ValueError(f"addends of {least} to {largest} make too few sums to ask {self.asked_sums} of them")
        return self

    def sort(self, stated: int) -> str:
        """What facts that are stated so often are called: by their class, or by the count where classes mix counts."""
        return str(stated) if self.by_fact else next(c.name for c in self.classes if stated in c.stated)


DEMO_WORLD = WorldSettings(
    classes=(
        PeopleClass(name="often", people=32, stated=(400,)),
        PeopleClass(name="rare", people=32, stated=(3, 5, 7, 9, 11, 13, 15, 17)),
        PeopleClass(name="never", people=32, stated=(0,)),
    ),
    by_fact=False,
    question_forms=1,
    strangers=4000,
    statements_per_document=4,
    meetings=0.4,
    passing_sums=0.1,
    repeats=0.5,
    sums=2500,
    sums_per_document=(2, 5),
    addends=((0, 10),),
    withhold_sums=False,
    stories=0,
)

LAB_WORLD = WorldSettings(
    classes=tuple(PeopleClass(name=str(count), people=20, stated=(count,)) for count in (0, 1, 4, 16, 64)),
    by_fact=False,
    question_forms=3,
    strangers=1000,
    statements_per_document=1,
    meetings=0.0,
    passing_sums=0.0,
    repeats=0.0,
    sums=4000,
    sums_per_document=(1, 1),
    addends=((0, 9), (10, 99), (100, 999)),
    withhold_sums=True,
    stories=500,
)
