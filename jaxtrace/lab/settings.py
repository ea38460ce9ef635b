"""Settings of worlds and trainings: the embedded model's, and those of `jaxtrace lab train`. Imports no JAX."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from jaxtrace.lab.phrases import QUESTIONS
from jaxtrace.settings.numbers import Count, Float, Float32, Natural, Seed
from jaxtrace.settings.validation import StrictModel
from jaxtrace.training.settings import Recipe

LARGEST_ADDEND = 10**9
FORMS = min(map(len, QUESTIONS.values()))
MOST_TEXTS = 1_000_000  # documents of one kind, statements of one fact, and asked sums
MOST_IN_DOCUMENT = 1000  # statements or sums
Names = Annotated[Count, Field(ge=2, le=400)]
InDocument = Annotated[Count, Field(le=MOST_IN_DOCUMENT)]


class PeopleClass(StrictModel):
    """A class of people whose facts are stated equally often, or in the same cycle of counts."""

    name: str = Field(description="Name of the class.")
    people: Count = Field(description="Number of people.")
    stated: tuple[Annotated[Natural, Field(le=MOST_TEXTS)], ...] = Field(
        min_length=1, description="Times the text states a fact; the n-th person has the n-th count, cyclically."
    )


class WorldSettings(StrictModel):
    """A world and the text about it; equal settings give equal worlds and texts. Unknown fields are refused."""

    seed: Seed = Field(default=0, description="Seed of names, facts and asked sums.")
    classes: tuple[PeopleClass, ...] = Field(min_length=1, description="Classes of people, in order.")
    by_fact: bool = Field(description="Give each fact of a person the next count of the cycle, not all the same one.")
    question_forms: Count = Field(
        le=FORMS, description="Phrasings of a question; if there are several, one is held out for each person."
    )
    first_names: Names = Field(default=60, description="Number of first names.")
    last_names: Names = Field(default=80, description="Number of last names.")
    places: Names = Field(default=32, description="Number of places.")
    strangers: Natural = Field(description="Documents about people who occur in no other document.")
    statements_per_document: Count = Field(
        le=MOST_IN_DOCUMENT, description="Maximum number of statements in a document."
    )
    meetings: Float = Field(ge=0, le=1, description="Probability that a document of facts also tells of a meeting.")
    passing_sums: Float = Field(ge=0, le=1, description="Probability that a document of facts ends in a sum.")
    repeats: Float = Field(ge=0, le=1, description="Probability that a stranger's fact is stated twice.")
    sums: Natural = Field(le=MOST_TEXTS, description="Documents of sums.")
    sums_per_document: tuple[InDocument, InDocument] = Field(description="Fewest and most sums in a document.")
    addends: tuple[tuple[Natural, Natural], ...] = Field(
        min_length=1, description="Smallest and largest addend, for each size of sums."
    )
    asked_sums: Count = Field(default=24, le=MOST_TEXTS, description="Sums of each size that the task asks.")
    withhold_sums: bool = Field(description="Keep the asked sums out of the text.")
    stories: Natural = Field(le=MOST_TEXTS, description="Documents that tell a story.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names, people = self.first_names * self.last_names, sum(group.people for group in self.classes)
        if names < people + self.strangers:
            raise ValueError(
                f"{names} names are too few for {people} people and {self.strangers} strangers; "
                "raise first_names or last_names"
            )
        if people < 2:
            raise ValueError(f"{people} person meets nobody; give two or more people")
        if self.sums_per_document[0] > self.sums_per_document[1]:
            raise ValueError(f"sums_per_document is {self.sums_per_document}; give the fewest first, then the most")
        for least, largest in self.addends:
            pairs = (largest - least + 1) ** 2
            if largest > LARGEST_ADDEND:
                raise ValueError(f"an addend of up to {largest} is too large; give at most {LARGEST_ADDEND:,}")
            if least > largest or pairs < 2 * self.asked_sums:
                raise ValueError(
                    f"addends of {least} to {largest} make too few sums to ask {self.asked_sums}; widen the range"
                )
        return self

    def frequency(self, stated: int) -> str:
        """Return the label of facts stated `stated` times: the class's name, or the count if classes mix counts."""
        return str(stated) if self.by_fact else next(c.name for c in self.classes if stated in c.stated)


class DecoderRecipe(Recipe):
    """Settings of a decoder's training."""

    learning_rate: Float32 = Field(
        default=3e-3, gt=0, description="Peak learning rate, reached after `warmup`; a cosine brings it to a twentieth."
    )
    warmup: Natural = Field(default=100, description="Steps of linear warm-up; half of `steps` is the maximum.")
    weight_decay: Float32 = Field(default=0.1, ge=0, description="Weight decay of AdamW.")


DEMO_RECIPE = DecoderRecipe(steps=1600, batch=8, length=256)
LAB_RECIPE = DecoderRecipe(steps=1000, batch=16, length=128)

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
