"""Few-shot examples: from the training split of the task's data, never from the prompts, the same every time."""

import csv
import json
from pathlib import Path

import pytest

from jaxtrace.errors import ConfigError, PromptError
from jaxtrace.run import load_prompts
from jaxtrace.settings.run import run_config
from jaxtrace.tasks import load_task

TRAIN = [("One and one?", "1 + 1 = <<1+1=2>>2.\n#### 2"), ("Two and two?", "#### 4"), ("Big?", "Big.\n#### 1,200")]


@pytest.fixture
def gsm8k(tmp_path):
    """Folder with test.jsonl and train.jsonl; the training split repeats the first question of the test."""
    for name, rows in (("test", [("Two and two?", "#### 4"), ("Nine?", "#### 9")]), ("train", TRAIN)):
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


@pytest.fixture
def mmlu(tmp_path):
    """Folders test and dev of two subjects, dev with two questions each."""
    for split, count in (("test", 1), ("dev", 2)):
        (tmp_path / split).mkdir()
        for subject in ("law", "sea_life"):
            with (tmp_path / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                for i in range(count):
                    csv.writer(file).writerow([f"{subject} {split} {i}?", "a", "b", "c", "d", "BD"[i]])
    return tmp_path


def roles(prompt):
    return [turn["role"] for turn in prompt.messages]


def test_examples_are_turns_of_a_chat_before_the_question(gsm8k):
    first, second = load_task("gsm8k", gsm8k / "test.jsonl", shots=2, chat=True)
    assert roles(second) == ["user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in second.messages] == [
        *("One and one?", "1 + 1 = <<1+1=2>>2.\n#### 2", "Two and two?", "#### 4"),
        "Nine?",
    ]
    assert second.text == "Nine?" and second.meta["answer"] == "9"
    assert second.meta["shots"] == ["train/gsm8k-0000", "train/gsm8k-0001"]
    assert first.meta["shots"] == ["train/gsm8k-0000", "train/gsm8k-0002"]  # not the question itself


def test_examples_are_blocks_of_text_without_a_chat(gsm8k):
    (prompt,) = load_task("gsm8k", gsm8k / "test.jsonl", 1, shots=1)
    assert prompt.messages is None
    assert prompt.text == (
        "Question: One and one?\nAnswer: 1 + 1 = <<1+1=2>>2.\n#### 2\n\nQuestion: Two and two?\nAnswer:"
    )


def test_prompts_from_the_training_split_are_not_their_own_examples(gsm8k):
    prompts = load_task("gsm8k", gsm8k / "train.jsonl", shots=2, chat=True)
    for prompt in prompts:
        assert prompt.text not in [turn["content"] for turn in prompt.messages[:-1]]


@pytest.mark.parametrize("data", ["test", "test/sea_life_test.csv"])
def test_examples_of_mmlu_have_the_subject_of_the_question(mmlu, data):
    prompt = load_task("mmlu", mmlu / data, shots=2)[-1]
    blocks = prompt.text.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["sea_life dev 0?", "sea_life dev 1?", "sea_life test 0?"]
    assert [block.splitlines()[-1] for block in blocks] == ["Answer: B", "Answer: D", "Answer:"]
    assert prompt.meta["shots"] == [f"dev/mmlu-{i:05d}" for i in ((0, 1) if data != "test" else (2, 3))]


def test_examples_of_mmlu_styles_are_asked_in_the_same_style(mmlu):
    for prompt in load_task("mmlu-styles", mmlu / "test", shots=1, chat=True):
        assert prompt.messages[1]["content"] == "B"
        question = prompt.messages[0]["content"]
        assert question == prompt.text.replace(" test 0?", " dev 0?")


def test_more_examples_than_the_split_has_are_refused(mmlu):
    message = "shots is 3, and the dev split has 2 for mmlu-00000; give at most as many"
    with pytest.raises(PromptError, match=message):
        load_task("mmlu", mmlu / "test", shots=3)


@pytest.mark.parametrize("name", ["test.jsonl", "mine.jsonl", "latest.jsonl"])
def test_a_missing_training_split_is_refused_and_never_the_test_split_read(gsm8k, name):
    (gsm8k / "train.jsonl").unlink()
    (gsm8k / "test.jsonl").rename(gsm8k / name)
    with pytest.raises(PromptError, match=f"{name}: shots come from the train split, and no .* is beside it"):
        load_task("gsm8k", gsm8k / name, shots=1)


def test_a_task_without_a_training_split_is_refused(tmp_path):
    message = "simpleqa: has no training split to take shots from; drop shots, or choose one of gsm8k, mmlu, mmlu-plain"
    with pytest.raises(PromptError, match=message):
        load_task("simpleqa", tmp_path / "x.csv", shots=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "a", "shots": 1}, "shots is 1 without a task"),
        ({"task": "gsm8k", "shots": -1}, "shots is -1; it must be greater than or equal to 0"),
        ({"task": "gsm8k", "shots": 1, "score": True}, "score feeds texts unchanged; drop shots"),
    ],
)
def test_settings_that_contradict_shots_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        run_config(**fields)


def test_a_run_counts_samples_after_its_examples(gsm8k):
    config = run_config(task="gsm8k", data=gsm8k / "test.jsonl", shots=1, samples=2, sampler="sample", limit=1)
    prompts = load_prompts(config, chat=True)
    assert [prompt.id for prompt in prompts] == ["gsm8k-0000-sample-0", "gsm8k-0000-sample-1"]
    assert all(len(prompt.messages) == 3 for prompt in prompts)


@pytest.mark.parametrize(("task", "data"), [("gsm8k", "gsm8k/test.jsonl"), ("mmlu", "mmlu/test")])
def test_published_data_have_their_training_split(shared_data: Path, task, data):
    prompts = load_task(task, shared_data / data, 3, shots=5, chat=True)
    assert all(len(prompt.messages) == 11 and len(prompt.meta["shots"]) == 5 for prompt in prompts)
    questions = {prompt.text for prompt in load_task(task, shared_data / data)}
    assert not questions & {turn["content"] for prompt in prompts for turn in prompt.messages[:-1]}
