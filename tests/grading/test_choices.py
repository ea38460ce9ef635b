"""Grades by the likeliest letter, against logits of one prompt at a time."""

import dataclasses
import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

import jaxtrace as jt
from jaxtrace import Model, Probes, StudyError
from jaxtrace.checkpoints.chat_template import ChatTemplate
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.grading.choices import letter_labels
from jaxtrace.grading.labels import read_labels
from jaxtrace.models.forward import forward_logits
from jaxtrace.settings.prompt import PromptSettings
from jaxtrace.tasks import Prompt
from tests.commands import run_command
from tests.engine.conftest import CONFIG

WORDS = ["?", *"ABCD", *(f"w{i}" for i in range(CONFIG.vocab_size - 5))]
CHAT = "{% for m in messages %}w0 {{ m.content }} w1\n{% endfor %}"


@pytest.fixture(scope="module")
def model():
    """A tiny random model of whole words with a chat template."""
    backend = Backend(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    backend.pre_tokenizer = WhitespaceSplit()
    bare = Model.from_checkpoint(RandomCheckpoint("tiny", CONFIG, 0), dtype=np.float32, mesh=None)
    return dataclasses.replace(bare, tokenizer=Tokenizer(backend, {}, ChatTemplate(CHAT)))


@pytest.fixture(scope="module")
def prompts():
    meta = {"choices": ["a", "b", "c", "d"]}
    return [Prompt(f"w{i} w{2 * i}", id=f"p{i}", meta=meta | {"answer": "ABCD"[i % 4]}) for i in range(12)]


@pytest.mark.parametrize("chat", ["always", "never"])
def test_the_likeliest_letter_after_the_prompt_is_graded(model, prompts, chat):
    rows = model.generate(prompts, max_new_tokens=1, chat=chat, probes=Probes.of("output")).rows
    labels = letter_labels(model, rows, PromptSettings(chat=chat), batch_size=5)
    for label, row in zip(labels, rows, strict=True):
        logits = np.asarray(forward_logits(CONFIG, model.params, row.prompt_tokens[None]))[0, -1]
        likeliest = "ABCD"[int(np.argmax(logits[1:5]))]
        assert (label.prompt, label.by) == (row.prompt.id, "likeliest letter")
        assert (label.grade == "correct") == (likeliest == row.prompt.meta["answer"])
    assert len({label.grade for label in labels}) == 2


def test_rows_of_other_settings_are_refused(model, prompts):
    rows = model.generate(prompts[:2], max_new_tokens=1, chat="never", probes=Probes.of("output")).rows
    with pytest.raises(StudyError, match="prompt p0: is not encoded as in its run; trace it again"):
        letter_labels(model, rows, PromptSettings())


def test_the_command_grades_by_the_model_of_the_trace(tmp_path, monkeypatch):
    """The demo has tokens of letters behind a line break; samples of one prompt are one unit of the interval."""
    monkeypatch.setattr("jaxtrace.figures.write_plots", lambda *_: [])
    file, labels = tmp_path / "prompts.jsonl", tmp_path / "labels.jsonl"
    texts = ["Which?\nA. red\nB. blue\nAnswer:\n", "Which one is it?\nA. cat\nB. dog\nAnswer:\n"]
    lines = [{"text": text, "choices": ["x", "y"], "answer": "A"} for text in texts]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    drawn = ("--sampler", "sample", "--samples", 2, "--max-new-tokens", 1, "--probes", "output")
    assert run_command("trace", "demo", "--prompts", file, *drawn, "--out", tmp_path / "run").status == 0
    done = run_command("grade", tmp_path / "run", "--letters", "--out", labels)
    assert done.status == 0 and "* over fewer than 10 units" in done.out and "over 2 prompts" in done.out
    demo = jt.load("demo", mesh=None)
    for label, row in zip(read_labels(labels), jt.open(tmp_path / "run").rows, strict=True):
        logits = np.asarray(forward_logits(demo.config, demo.params, row.prompt_tokens[None]))[0, -1]
        a, b = (logits[demo.tokenizer.encode(row.prompt.text + letter, chat=False)[-1]] for letter in "AB")
        assert (label.grade == "correct") == bool(a > b) and label.by == "likeliest letter"


def test_the_command_refuses_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrace.figures.write_plots", lambda *_: [])
    run = ("trace", "demo", "--limit", 1, "--max-new-tokens", 1, "--probes", "output", "--out", tmp_path / "run")
    assert run_command(*run).status == 0
    grade = ("grade", tmp_path / "run", "--letters", "--out", tmp_path / "labels.jsonl")
    for more, message in (
        ((), "has no list of choices"),
        (("--published-checker",), "both grade the answers; keep one"),
    ):
        done = run_command(*grade, *more)
        assert (done.status, done.err.count("\n")) == (2, 1) and message in done.err
