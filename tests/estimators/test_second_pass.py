"""Estimators that read the answers once more, on the demo, against the model's own scores and weights."""

import logging
from dataclasses import replace

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.errors import ConfigError, LackingError
from jaxtrace.estimators import second_pass

PROMPTS = ["Question: What is 3 + 5? Answer:", "Once upon a time there was"]


@pytest.fixture(scope="module")
def model():
    return jt.load("demo")


@pytest.fixture(scope="module")
def trace(model):
    return model.generate(PROMPTS, max_new_tokens=6, probes=jt.Probes.of("output"), stop_tokens=())


def answer_of(row):
    return row.metrics["token"].tolist()


def test_pmi_compares_each_token_with_the_answer_alone(model, trace):
    alone = model.score([answer_of(row) for row in trace.rows], probes=jt.Probes.of("output"))
    tau = float(np.median(np.concatenate([row.metrics["entropy"] for row in trace.rows])))
    scores, gated = jt.estimators.pmi(trace, model=model), jt.estimators.cpmi(trace, model=model, tau=tau, weight=2.0)
    for i, (row, read) in enumerate(zip(trace.rows, alone.rows, strict=True)):
        without = np.concatenate([[0.0], read.metrics["logprob"][:-1]])
        np.testing.assert_allclose(scores.tokens[i], without - row.metrics["logprob"], atol=1e-5)
        uncertain = row.metrics["entropy"] >= tau
        expected = np.where(uncertain, 2 * without, 0) - row.metrics["logprob"]
        np.testing.assert_allclose(gated.answers[i], expected.mean(), atol=1e-5)


def test_p_true_is_the_probability_of_the_text_true(model, trace):
    template = "{answer} {question} {answer}"
    scores = jt.estimators.p_true(trace, model=model, template=template)
    true = model.tokenizer.encode("True", chat=False)[1:]
    for row, score in zip(trace.rows, scores.answers, strict=True):
        text = f"{row.text} {row.prompt.text} {row.text}"
        ids = model.tokenizer.encode(text, chat=False) + true
        logprobs = model.score([ids], probes=jt.Probes.of("output")).rows[0].metrics["logprob"]
        np.testing.assert_allclose(score, -logprobs[-1 - len(true) : -1].sum(), rtol=1e-4)


def test_texts_in_braces_are_not_fields_of_the_template(model, trace):
    row = trace.rows[0]
    odd = replace(row, prompt=jt.Prompt("{answer} {0} {", id="odd"))
    filled = second_pass._filled("p_true", "{question}|{answer}", odd, model, "question", "answer")
    assert filled == f"{{answer}} {{0}} {{|{row.text}"


def test_csl_weighs_tokens_by_the_mean_weight_of_all_heads(model, trace):
    scores = jt.estimators.csl(trace, model=model, before="About {question}: ", after=" so?")
    layers = range(1, model.config.num_layers + 1)
    heads = tuple((layer, head) for layer in layers for head in range(model.config.num_heads))
    for row, score in zip(trace.rows, scores.answers, strict=True):
        start = model.tokenizer.encode(f"About {row.prompt.text}: ", chat=False)
        end = model.tokenizer.encode(" so?", chat=False)[1:]
        read = model.score([start + answer_of(row) + end], probes=jt.Probes.of(attention_rows=heads)).rows[0]
        weights = read.metrics["attention_rows"][-1, :, len(start) : len(start) + row.length].mean(0)
        expected = -(weights / weights.sum() * row.metrics["logprob"]).sum()
        np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_attention_score_sums_the_diagonal_over_prompt_and_answer(model, trace):
    scores = jt.estimators.attention_score(trace, model=model)
    heads = tuple((model.config.num_layers // 2 + 1, head) for head in range(model.config.num_heads))
    for row, score in zip(trace.rows, scores.answers, strict=True):
        ids = row.prompt_tokens.tolist() + answer_of(row)
        weights = model.score([ids], probes=jt.Probes.of(attention_rows=heads)).rows[0].metrics["attention_rows"]
        diagonal = np.array([weights[i, :, i] for i in range(len(ids))], float)
        np.testing.assert_allclose(score, -np.log(diagonal + 1e-12).sum(0).mean(), rtol=1e-4)


def test_an_answer_without_a_token_has_no_score_and_one_token_is_enough(model, trace):
    row = trace.rows[0]
    short = [{name: values[:count] for name, values in row.metrics.items()} for count in (0, 1)]
    rows = [replace(row, metrics=metrics, pieces=row.pieces[:i]) for i, metrics in enumerate(short)]
    for name in ("pmi", "cpmi", "p_true", "csl", "attention_score"):
        scores = getattr(jt.estimators, name)(jt.Trace(rows, trace.info), model=model).answers
        assert np.isnan(scores[0]) and np.isfinite(scores[1]), name
    alone = jt.estimators.pmi(jt.Trace(rows, trace.info), model=model).answers[1]
    np.testing.assert_allclose(alone, -short[1]["logprob"][0])


def test_wrong_templates_and_inputs_are_refused(model, trace):
    with pytest.raises(ConfigError, match=r"p_true: its template lacks \{answer\}"):
        jt.estimators.p_true(trace, model=model, template="{question}?")
    with pytest.raises(ConfigError, match="csl: after is empty"):
        jt.estimators.csl(trace, model=model, after="")
    nameless = type(model)(model.name, model.config, model.params)
    with pytest.raises(LackingError, match="p_true: needs a tokenizer, and the model has none"):
        jt.estimators.p_true(trace, model=nameless)


def test_an_answer_whose_text_exceeds_the_context_has_no_score_and_the_others_have(model, trace, caplog):
    lengths = [len(row.prompt_tokens) + row.length for row in trace.rows]
    small = replace(model, config=replace(model.config, context=max(lengths) - 1))
    with caplog.at_level(logging.WARNING, "jaxtrace"):
        scores = jt.estimators.attention_score(trace, model=small).answers
        asked = [getattr(jt.estimators, name)(trace, model=small).answers for name in ("p_true", "csl")]
    np.testing.assert_array_equal(np.isnan(scores), np.array(lengths) == max(lengths))
    assert np.isnan(asked).all() and "attention_score: 1 of 2 answers have no score" in caplog.text


def test_answers_are_read_again_under_the_ablation_that_they_were_drawn_under(model):
    without = jt.Interventions.of(model.config, layers=[2], heads=[(1, 0)])
    settings = {"probes": jt.Probes.of("output"), "stop_tokens": (), "interventions": without}
    ablated = model.generate(PROMPTS[:1], max_new_tokens=5, **settings)
    (row,) = ablated.rows
    read = model.score([answer_of(row)], interventions=without, probes=jt.Probes.of("output")).rows[0]
    alone = np.concatenate([[0.0], read.metrics["logprob"][:-1]])
    np.testing.assert_allclose(
        jt.estimators.pmi(ablated, model=model).tokens[0], alone - row.metrics["logprob"], atol=1e-5
    )


def test_p_true_asks_about_the_answer_without_its_thought_and_after_the_start_token_of_the_run(model, trace):
    row = replace(trace.rows[0], text="<think>seven?</think>eight")
    info = trace.info | {"prompt_format": trace.info["prompt_format"] | {"bos": "never"}}
    score = jt.estimators.p_true(jt.Trace([row], info), model=model, template="{question} {answer}").answers[0]
    ids = model.tokenizer.encode(f"{row.prompt.text} eightTrue", chat=False)[1:]
    start = len(model.tokenizer.encode(f"{row.prompt.text} eight", chat=False)[1:])
    true = model.tokenizer.encode_text("True", bos="never").ids
    logprobs = model.score([ids[:start] + true], probes=jt.Probes.of("output")).rows[0].metrics["logprob"]
    np.testing.assert_allclose(score, -logprobs[start - 1 : -1].sum(), rtol=1e-4)
