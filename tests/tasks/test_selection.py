"""Samples of prompts: reproducible, stratified, refused when they cannot be drawn."""

import re
from collections import Counter

import pytest
import yaml

from jaxtrace.errors import ConfigError, PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.run import load_prompts, run_config
from jaxtrace.settings.run import overridden
from jaxtrace.sweeping.cells import read_sweep
from jaxtrace.tasks import load_task
from jaxtrace.tasks.selection import choose
from tests.commands import run_command

SIZES = {"art": 60, "law": 30, "maths": 9, "logic": 1}
PROMPTS = [
    Prompt(text=f"{subject} {i}", id=f"{subject}-{i}", meta={"subject": subject, "tags": [subject]})
    for subject, size in SIZES.items()
    for i in range(size)
]


def test_a_sample_keeps_order_and_ids_and_follows_its_seed():
    drawn = choose(PROMPTS, 20, 0)
    assert drawn == [prompt for prompt in PROMPTS if prompt in drawn] and len(drawn) == 20
    assert drawn == choose(PROMPTS, 20, 0) != choose(PROMPTS, 20, 1)
    assert choose(PROMPTS, len(PROMPTS), 3) == PROMPTS == choose(PROMPTS, None, 3)


def test_every_prompt_is_as_likely_as_any_other():
    counts = Counter(prompt.id for seed in range(400) for prompt in choose(PROMPTS, 25, seed))
    assert len(counts) == 100 and min(counts.values()) > 60 and max(counts.values()) < 145  # 100 ± 5 deviations


@pytest.mark.parametrize("key", ["subject", "tags"])
def test_strata_share_a_sample_in_proportion_and_none_is_empty(key):
    def counts(sample):
        return Counter(prompt.meta["subject"] for prompt in choose(PROMPTS, sample, 0, key))

    assert counts(50) == {"art": 30, "law": 15, "maths": 4, "logic": 1}
    assert counts(4) == dict.fromkeys(SIZES, 1)
    assert counts(100) == SIZES
    assert choose(PROMPTS, 50, 0, key) != choose(PROMPTS, 50, 1, key)


@pytest.mark.parametrize(
    ("sample", "stratify", "message"),
    [
        (101, None, "sample is 101, and there are 100 prompts; give at most 100"),
        (101, "subject", "sample is 101, and there are 100 prompts; give at most 100"),
        (3, "subject", "sample is 3, and 'subject' has 4 values; give at least 4"),
        (3, "x\n", r"stratify: prompt art-0 has no 'x\\n'; choose from its metadata: subject, tags"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(sample, stratify, message):
    with pytest.raises(PromptError, match=re.escape(message)):
        choose(PROMPTS, sample, 0, stratify)


def test_runs_sample_tasks_files_texts_and_the_demo(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"prompt {i}\n" for i in range(30)))
    ids = [prompt.id for prompt in load_prompts(run_config(prompts=file, sample=5, seed=4))]
    assert ids == [prompt.id for prompt in load_task("prompts", file, sample=5, seed=4)]
    assert ids != [f"mine-{i:04d}" for i in range(5)] and {*ids} <= {f"mine-{i:04d}" for i in range(30)}
    kinds = [prompt.meta["kind"] for prompt in load_prompts(run_config(task="lab", sample=9, stratify="kind"))]
    assert len(kinds) == 9 and {*kinds} == {"fact", "story", "sum"}
    assert len(load_prompts(run_config(text=["a", "b", "c"], sample=2))) == 2
    assert len(load_prompts(run_config(sample=2, samples=3, sampler="sample"))) == 6


def test_limit_and_sample_exclude_each_other_and_override_each_other(tmp_path):
    with pytest.raises(ConfigError, match="limit and sample exclude each other; keep one"):
        run_config(limit=3, sample=2)
    with pytest.raises(ConfigError, match="stratify is 'subject' without a sample; give sample too"):
        run_config(stratify="subject")
    file = tmp_path / "run.yaml"
    file.write_text("sample: 8\nstratify: relation\ntask: lab\n")
    assert run_config(file, limit=2).sample is None and run_config(file, sample=4).stratify == "relation"
    assert overridden({"limit": 8}, {"sample": 3}) == {"sample": 3}


def test_a_sweep_draws_a_sample_for_each_seed(tmp_path):
    file = tmp_path / "sweep.yaml"
    sweep = {"models": ["demo"], "tasks": ["lab"], "seeds": [0, 1], "settings": {"sample": 3}}
    file.write_text(yaml.safe_dump(sweep))
    first, second = ([prompt.id for prompt in load_prompts(cell.config)] for cell in read_sweep(file))
    assert first != second


def test_a_resumed_run_has_the_same_sample_and_refuses_another(tmp_path):
    words = ["trace", "demo", "--task", "lab", "--sample", "2", "--stratify", "kind", "--max-new-tokens", "1"]
    words += ["--probes", "output", "--out", str(tmp_path / "run")]
    refused = run_command(*words)
    assert refused.status == 2 and "'kind' has 3 values" in refused.err and refused.err.count("\n") == 1
    words[words.index("2")] = "20"
    assert run_command(*words).status == 0
    assert run_command(*words, "--resume").status == 0
    other = run_command(*words, "--resume", "--seed", "1")
    assert other.status == 2 and "seed" in other.err
