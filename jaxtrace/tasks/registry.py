"""Tasks by name; imports no library that `jaxtrace --help` would wait for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jaxtrace.errors import ConfigError, PromptError
from jaxtrace.plugins import Registry, failures_named, place_of
from jaxtrace.prompts import Prompt
from jaxtrace.settings.validation import did_you_mean
from jaxtrace.tasks import (
    factual_creative,
    files,
    formats,
    gsm8k,
    mmlu,
    mmlu_styles,
    simpleqa,
    story_questions,
    tinystories,
    truthfulqa,
)
from jaxtrace.tasks.few_shot import Training, with_shots
from jaxtrace.tasks.selection import choose

Load = Callable[[Path | None, int | None], list[Prompt]]


@dataclass(frozen=True)
class Task:
    """Source of prompts.

    Attributes:
      load: function from (file or None, limit or None) to prompts.
      text: description in one line.
      size: number of prompts of its data on the hub; None if that is not fixed.
      training: training split, from which few-shot examples come; None if the data has none.
    """

    load: Load
    text: str
    size: int | None = None
    training: Training | None = None


TASKS: Registry[Task] = Registry("tasks", lambda value: isinstance(value, Task))
BUILT_IN: dict[str, Task] = {
    "truthfulqa": Task(truthfulqa.load, "817 questions that people often answer falsely", 817),
    "tinystories": Task(tinystories.load, "the first 20 words of short stories for children", 21_990),
    "tinystories-whole": Task(partial(tinystories.load, words=None), "the same stories in full, to score", 21_990),
    "story-questions": Task(story_questions.load, "requests of three kinds about stories for children"),
    "story-questions-leak": Task(
        partial(story_questions.load, leak=True), "the same, shuffled as the published code does"
    ),
    "formats": Task(formats.load, "546 requests for a chat log, a poem or a scientific piece about 182 topics", 546),
    "simpleqa": Task(simpleqa.load, "4,326 short questions of fact", 4_326),
    "gsm8k": Task(gsm8k.load, "1,319 problems of arithmetic in words", 1_319, gsm8k.TRAINING),
    "mmlu": Task(mmlu.load, "14,042 questions of 57 subjects with four choices", 14_042, mmlu.TRAINING),
    "mmlu-plain": Task(
        mmlu.load_plain, "the same, without a request for the letter, as published tests ask", 14_042, mmlu.TRAINING
    ),
    "mmlu-styles": Task(
        mmlu_styles.load,
        "the same, of up to 1,000 characters, in four styles of asking",
        training=replace(mmlu.TRAINING, shared=("subject", "style")),
    ),
    "factual-creative": Task(factual_creative.load, "200 requests, for facts and for inventions, of 100 topics", 200),
    "prompts": Task(files.load, "your own file: .txt, .jsonl or .csv"),
}


for _name, _task in BUILT_IN.items():
    TASKS.register(_name, _task, __name__)


def task(name: str, text: str, *, size: int | None = None, training: Training | None = None) -> Callable[[Load], Load]:
    """Return a decorator that makes a task of a function (file or None, limit or None) → prompts.

    Args:
      name: name of the task.
      text, size, training: attributes of `Task`.

    Raises:
      ConfigError: the name is taken or has another character than letters, digits, "_" and "-".
    """

    def register(load: Load) -> Load:
        def checked(file: Path | None, limit: int | None) -> list[Prompt]:
            with failures_named(f"task {name}"):
                prompts = list(load(file, limit))
            if wrong := [prompt for prompt in prompts if not isinstance(prompt, Prompt)]:
                raise ConfigError(
                    f"task {name}: returns a {type(wrong[0]).__name__}, no jt.Prompt; correct the plug-in"
                )
            return prompts

        TASKS.register(name, Task(checked, text, size, training), place_of(load))
        return load

    return register


def known_tasks() -> dict[str, Task]:
    """Return every task by name: built-in ones, those of `task`, and entry points in the group "jaxtrace.tasks"."""
    return TASKS.all()


def find_task(name: str) -> Task:
    """Return a task by name; raises PromptError with the nearest name if there is none."""
    found = TASKS.find(name)
    if found is None:
        names = TASKS.names
        raise PromptError(f"no task is named {name!r}{did_you_mean(name, names)}choose one of {', '.join(names)}")
    return found


def load_task(
    name: str,
    data: Path | None = None,
    limit: int | None = None,
    *,
    sample: int | None = None,
    seed: int = 0,
    stratify: str | None = None,
    shots: int = 0,
    chat: bool = False,
) -> list[Prompt]:
    """Return the prompts of a task.

    Args:
      name: name in `known_tasks()`.
      data: local copy of its data; None for the hub's.
      limit: maximum number of prompts, from the first on; None for all.
      sample: number of prompts to draw at random from these; None keeps all. See `choose`.
      seed: seed of the sample.
      stratify: key of `meta` whose values share the sample; None for no strata.
      shots: number of solved examples before each prompt; see `with_shots`.
      chat: True for examples as turns of a chat, False for blocks of text.

    Raises:
      PromptError: the task is unknown, its data cannot be read, the sample cannot be drawn, or the training split has
        too few examples; one line that says what to do.
    """
    found = find_task(name)
    if shots and found.training is None:
        able = ", ".join(other for other, task in known_tasks().items() if task.training is not None)
        raise PromptError(f"{name}: has no training split to take shots from; drop shots, or choose one of {able}")
    prompts = choose(found.load(data, limit), sample, seed, stratify)
    if not shots or found.training is None:
        return prompts
    return with_shots(prompts, found.load(found.training.path(data), None), found.training, shots, chat=chat)
