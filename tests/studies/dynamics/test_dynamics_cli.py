"""`jaxtrace study dynamics` as a command, and the last prompt token fed twice in a real run."""

import numpy as np
import pandas as pd
import pytest

import jaxtrace as jt
from jaxtrace.engine.encode import encode
from jaxtrace.errors import ConfigError
from jaxtrace.run import RunConfig, run_config
from tests.commands import run_command
from tests.figures import traces as made

CONFIG = jt.DecoderConfig("llama", 9, 8, 1, 1, 1, 8, 8, context=6)


def study(*arguments):
    return run_command("study", "dynamics", *arguments)


@pytest.mark.parametrize("twice", [False, True])
def test_the_last_token_is_duplicated_on_request(twice):
    ((_, tokens),) = encode([[3, 1, 4]], "tiny", CONFIG, None, chat=False, last_twice=twice)
    assert tokens.tolist() == ([3, 1, 4, 4] if twice else [3, 1, 4])


def test_a_duplicated_token_needs_room_in_the_context():
    encode([[1] * 6], "tiny", CONFIG, None, chat=False)
    with pytest.raises(jt.PromptError, match="has 7 tokens, and the context of tiny holds 6"):
        encode([[1] * 6], "tiny", CONFIG, None, chat=False, last_twice=True)
    with pytest.raises(ConfigError, match="score feeds texts unchanged"):
        run_config(score=True, compat_duplicate_last_prompt_token=True)
    assert not RunConfig().compat_duplicate_last_prompt_token


def test_unusable_input_is_refused_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    made.trace([made.row(rng, ["a"] * 6, groups=("output",))]).save(tmp_path / "few")
    done = study(tmp_path / "few", "--out", tmp_path / "out")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "--probes that include attention,hidden" in done.err
    done = study("--out", tmp_path / "out")
    assert done.status == 2 and "give traces to study, or models" in done.err
    done = study(tmp_path / "few", "--hdi", "sum", "--out", tmp_path / "out")
    assert done.status == 2 and "'std', 'var', 'cv', 'fano', 'range' or 'jsd'" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("dynamics", "--choices", "absent.json"), "absent.json: cannot be read (No such file"),
        (("dynamics", "--primer", "absent.txt"), "absent.txt: cannot be read (No such file"),
        (("dynamics", "--template", "Q:"), "template is Q:; it must contain {question}"),
        (("lens", "--metric", "hdi", "--metric", "banana"), "banana: is no metric with a value for each layer"),
    ],
)
def test_an_unusable_setting_ends_a_study_before_a_model_runs(tmp_path, options, message):
    done = run_command("study", *options, "--model", "demo", "--limit", 1, "--out", tmp_path / "out")
    assert done.status == 2 and done.err.count("\n") == 1
    assert message in done.err and not (tmp_path / "out" / "traces").exists()


@pytest.mark.parametrize("from_file", [False, True])
def test_duplicating_the_last_token_contradicts_traces(tmp_path, from_file):
    file = tmp_path / "study.yaml"
    file.write_text(f"traces: [{tmp_path}]" if from_file else "tau: 0.3")
    where = () if from_file else (tmp_path,)
    done = study(*where, "--config", file, "--compat-duplicate-last-prompt-token", "--out", tmp_path / "out")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "--compat-duplicate-last-prompt-token affects only runs that the study makes" in done.err


@pytest.mark.slow
def test_a_run_with_a_duplicated_last_token(tmp_path):
    runs = ("--model", "demo", "--limit", 1, "--max-new-tokens", 8)
    done = study(*runs, "--compat-duplicate-last-prompt-token", "--long", "parquet", "--out", tmp_path)
    assert done.status == 0, done.err
    assert (tmp_path / "study.html").exists() and (tmp_path / "tables" / "classes.csv").exists()
    trace = jt.open(tmp_path / "traces" / "demo")
    model = jt.load("demo", mesh=None)
    long = pd.read_parquet(tmp_path / "long" / "demo.parquet")
    per_token = model.config.kv_bytes(1)
    for row in trace.rows:
        plain = model.tokenizer.encode(row.prompt.text, chat=False)
        assert row.prompt_tokens.tolist() == [*plain, plain[-1]]
        own = long[long["prompt"] == row.prompt.id]
        generated = own[own["phase"] == "GEN"]
        assert sorted(generated["step"].unique()) == [*range(1, 9)]
        assert generated["kv_total_mb"].max() == (len(plain) + 8) * per_token / 2**20
        prompt = own[own["phase"] == "PROMPT"]
        assert prompt["kv_total_mb"].unique() == [len(plain) * per_token / 2**20]
        scored = model.score([row.prompt_tokens.tolist()], probes=jt.Probes.of("output")).rows[0].metrics
        assert prompt["output_entropy"].iloc[0] == pytest.approx(scored["entropy"][-2], abs=1e-5)
        first = generated[generated["step"] == 1]["output_entropy"].iloc[0]
        assert first == pytest.approx(scored["entropy"][-1], abs=1e-5)
        assert abs(first - prompt["output_entropy"].iloc[0]) > 1e-3


def test_only_the_traced_questions_are_scored_and_every_score_is_written(tmp_path, monkeypatch):
    asked = []

    def answered(model, questions, *, on_answers, **_):
        on_answers(len(questions), len(questions))
        asked.extend(question.question for question in questions)
        return [
            {text: -2.0 - 3 * (text in one.single and one.single[text] == i % 2) for text in one.answers}
            for i, one in enumerate(questions)
        ]

    monkeypatch.setattr("jaxtrace.studies.dynamics.multiple_choice.answer_logprobs", answered)
    run = ("--config", "configs/studies/dynamics-demo.yaml", "--sample", 5, "--max-new-tokens", 5, "--resamples", 20)
    done = study(*run, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    traced = [row.prompt.text for row in jt.open(tmp_path / "out" / "traces" / "demo").rows]
    assert len(asked) == 5 and {*asked} == {*traced} and "5/5 answers" in done.err
    scores = pd.read_csv(tmp_path / "out" / "tables" / "choices_questions.csv")
    assert scores["question"].tolist() == asked and scores[["mc1", "mc2", "mc3"]].notna().all(axis=None)
    assert pd.read_csv(tmp_path / "out" / "tables" / "choices.csv")["n"].tolist() == [5]
