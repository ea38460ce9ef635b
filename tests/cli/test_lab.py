"""`jaxtrace lab train`: refusals, and a model of a small world from training to answers."""

import re

import pytest

import jaxtrace as jt
from jaxtrace.lab import training
from jaxtrace.lab.settings import LAB_WORLD, PeopleClass
from jaxtrace.training import loop


@pytest.fixture
def refused(jaxtrace, tmp_path):
    def call(*arguments, out=tmp_path / "model"):
        done = jaxtrace("lab", "train", "--out", out, *arguments)
        assert done.status == 2, done.out + done.err
        assert done.err.startswith("jaxtrace: ") and done.err.count("\n") == 1
        return done.err

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "bert"], "lab train: family is bert; it must be 'llama', 'gemma', 'qwen' or 'gpt2'"),
        (["--layers", 0], "lab train: layers is 0; it must be greater than or equal to 1"),
        (["--width", 72], "lab train: width is 72; it must be a multiple of 32"),
        (["--steps", 0], "lab train: steps is 0; it must be greater than or equal to 1"),
        (["--seed", -1], "lab train: seed is -1; it must be greater than or equal to 0"),
        (["--world", "nowhere.json"], "nowhere.json: No such file or directory; name a world.json"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(refused, arguments, message, tmp_path):
    assert message in refused(*arguments)
    assert not (tmp_path / "model").exists()


def test_a_finished_model_is_not_overwritten(refused, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert "holds a model already; give another --out" in refused(out=tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"


def test_other_files_are_not_overwritten(refused, tmp_path):
    for name in ("README.md", "config.json", "world.json"):
        (tmp_path / name).write_text("mine")
    assert "holds other files; give another --out" in refused(out=tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"] * 3


@pytest.mark.slow
@pytest.mark.nightly
def test_an_interrupted_training_resumes_to_a_model_that_answers_the_task(jaxtrace, monkeypatch, tmp_path):
    classes = tuple(PeopleClass(name=str(count), people=2, stated=(count,)) for count in (0, 2, 16))
    small = LAB_WORLD.model_copy(update={"classes": classes, "strangers": 20, "sums": 40, "stories": 20})
    (tmp_path / "small.json").write_text(small.model_dump_json())
    out = tmp_path / "model"
    command = ("lab", "train", "--family", "gemma", "--layers", 2, "--width", 32, "--steps", 4, "--out", out)
    command += ("--world", tmp_path / "small.json")

    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    save = loop.save_state

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", save_and_stop)
    stopped = jaxtrace(*command)
    assert stopped.status == 130 and "run the same command again to resume" in stopped.err
    monkeypatch.setattr(loop, "save_state", save)
    done = jaxtrace(*command)
    assert done.status == 0, done.err
    assert "step 4:" in done.out and "step 2:" not in done.out
    assert {path.name for path in out.iterdir()} == {
        *("README.md", "config.json", "generation_config.json", "model.safetensors", "world.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    }
    card = (out / "README.md").read_text()
    assert "jaxtrace lab train --family gemma --layers 2 --width 32 --steps 4 --seed 0 --world world.json" in card
    assert re.search(r"\| held-out \| 16 \| 6 \| ", card)

    traced = jaxtrace(
        *("trace", out, "--task", "lab", "--data", out, "--limit", 6, "--max-new-tokens", 2, "--out", tmp_path / "t"),
        *("--probes", "output"),
    )
    assert traced.status == 0, traced.err
    kinds = [row.prompt.meta["kind"] for row in jt.open(tmp_path / "t").rows]
    assert kinds == ["fact", "fact", "fact", "held-out", "held-out", "held-out"]
