"""Estimators that need the model once more, which reads each answer again or judges it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from jaxtrace.engine.settings import Settings
from jaxtrace.errors import ConfigError, LackingError
from jaxtrace.estimators.answers import answer_text
from jaxtrace.estimators.attention import LEAST_WEIGHT, middle_layer
from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores, drawn, score_tokens
from jaxtrace.model import Model
from jaxtrace.models.interventions import Interventions
from jaxtrace.prompts import Prompt
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.prompt import PromptSettings, StartMode
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

BATCH = 8  # texts that are read at once
FIELD = re.compile(r"\{(question|answer)\}")
TRUE_OR_FALSE = (
    "Question: {question}\n Possible answer:{answer}\n Is the possible answer:\n (A) True\n (B) False\n"
    " The possible answer is:"
)
BEFORE_ANSWER = "Read a question and an answer, and decide whether the answer is right.\nQuestion: {question}\nAnswer: "
AFTER_ANSWER = "\n\nDecision:"


@estimator(
    formula="−mean (ln p[token] − ln p of the token without the prompt); 0 without it for the first token",
    source="Takayama and Arase 2019",
    metrics=("logprob",),
    passes="two",
)
def pmi(trace: Trace, *, model: Model) -> Scores:
    """Return the negative mean pointwise mutual information of each answer's tokens with the prompt, in nats."""
    alone = iter(_alone(trace, model))
    return score_tokens(trace, lambda row: next(alone) - drawn(row, "logprob"), np.mean)


@estimator(
    formula="−mean (ln p[token] − λ ln p of the token without the prompt where entropy ≥ τ)",
    source="van der Poel et al. 2022 (arXiv 2210.13210)",
    metrics=("logprob", "entropy"),
    passes="two",
)
def cpmi(trace: Trace, *, model: Model, tau: float = 0.0656, weight: float = 3.599) -> Scores:
    """Return the conditional form of `pmi`, in nats.

    Args:
      tau: least entropy of a step, in nats, whose token is compared with the answer alone; the source's value.
      weight: λ, weight of the comparison; the source's value.
    """
    alone = iter(_alone(trace, model))

    def of_row(row: Row) -> Float[np.ndarray, " drawn"]:
        return np.where(drawn(row, "entropy") >= tau, weight * next(alone), 0.0) - drawn(row, "logprob")

    return score_tokens(trace, of_row, np.mean)


@estimator(
    formula="−ln p('True') after the question, the answer, and whether it is true or false",
    source="Kadavath et al. 2022 (arXiv 2207.05221)",
    passes="two",
)
def p_true(trace: Trace, *, model: Model, template: str = TRUE_OR_FALSE) -> Scores:
    """Return −ln p of "True" as the next text of a prompt that asks whether the answer is true.

    The prompt is a turn of a chat if the trace's prompts were; "True" may be several tokens.

    Args:
      template: text with {question}, the prompt's text, and {answer}, without its thought.

    Raises:
      ConfigError: the template lacks one of them.
      LackingError: the model has no tokenizer, or a prompt has images.
    """
    _require_text("p_true", trace, model)
    tokenizer = model.tokenizer
    assert tokenizer is not None
    form = trace.info.get("prompt_format") or {}
    chat = form.get("template") is not None
    settings = PromptSettings(
        chat="auto" if chat else "never", bos=_bos(trace), template_arg=form.get("template_arg") if chat else None
    )
    asked = [Prompt(_filled("p_true", template, row, model, "question", "answer")) for row in trace.rows]
    true = tokenizer.encode_text("True", bos="never").ids
    texts = [tokenizer.encode_prompt(prompt, settings).ids + true for prompt in asked]
    scores, fit = np.full(len(texts), np.nan), _fitting("p_true", trace, model, texts)
    rows = _scored(trace, model, [texts[i] for i in fit], Probes.of("output", alphas=()))
    scores[fit] = [-row.metrics["logprob"][-1 - len(true) : -1].astype(float).sum() for row in rows]
    return Scores(scores)


@estimator(
    formula="−Σ w ln p[token], Σ w = 1, w the weights on the answer's tokens, mean of all heads, of the last position "
    "of a prompt that asks whether the answer is right",
    source="Lin et al. 2024 (arXiv 2406.01806)",
    metrics=("logprob",),
    passes="two",
)
def csl(trace: Trace, *, model: Model, before: str = BEFORE_ANSWER, after: str = AFTER_ANSWER) -> Scores:
    """Return the contextualised sequence likelihood of each answer.

    The source selects heads on labelled answers; all heads count here, as in lm-polygraph.

    Args:
      before: text before the answer, with {question}, the prompt's text.
      after: text after the answer, at whose last token the model is about to judge.

    Raises:
      ConfigError: `before` lacks {question}, or `after` is empty.
      LackingError: the model has no tokenizer or no layer that attends to text, or a prompt has images.
    """
    _require_text("csl", trace, model)
    if not after:
        raise ConfigError("csl: after is empty; give the text that follows the answer")
    layers = [layer for layer, kind in enumerate(model.config.kinds, 1) if kind.attends_to_text]
    if not layers:
        raise LackingError("csl: needs layers that attend to the text, and the model has none")
    tokenizer = model.tokenizer
    assert tokenizer is not None
    heads = tuple((layer, head) for layer in layers for head in range(model.config.num_heads))
    bos = _bos(trace)
    starts = [tokenizer.encode_text(_filled("csl", before, row, model, "question"), bos=bos).ids for row in trace.rows]
    end = tokenizer.encode_text(after, bos="never").ids
    texts = [start + answer + end for start, answer in zip(starts, _answers(trace), strict=True)]
    scores, fit = np.full(len(texts), np.nan), _fitting("csl", trace, model, texts)
    settings = {"max_new_tokens": 1, "batch_size": BATCH, "stop_tokens": ()}
    settings |= {"interventions": _interventions(trace, model)}
    # Step 0 is the last position of the text, before the drawn token.
    judged = model.generate([texts[i] for i in fit], probes=Probes.of(attention_rows=heads), **settings)
    for i, read in zip(fit, judged.rows, strict=True):
        logprobs, start = drawn(trace.rows[i], "logprob"), len(starts[i])
        weights = read.metrics["attention_rows"][0, :, start : start + len(logprobs)].mean(0, dtype=float)
        scores[i] = weighted_likelihood(logprobs, weights)
    return Scores(scores)


def weighted_likelihood(logprobs: Float[np.ndarray, " T"], weights: Float[np.ndarray, " T"]) -> float:
    """Return −Σ w ln p with weights that are divided by their sum; NaN where this is 0, or without a token."""
    total = weights.sum()
    return float(-(weights @ logprobs) / total) if total > 0 else np.nan


@estimator(
    formula="−mean over heads of Σ ln(a + 1e-12), a the weight of a position on itself, over all positions of prompt "
    "and answer; layer ⌊L/2⌋ + 1 of 1 … L, or the nearest with attention",
    source="Sriramanan et al. 2024 (LLM-Check)",
    passes="two",
)
def attention_score(trace: Trace, *, model: Model) -> Scores:
    """Return the attention score of each prompt with its answer, the last drawn token's own position included.

    Raises:
      LackingError: a prompt has images, or no layer has attention.
    """
    _require_text("attention_score", trace, model, tokenizer=False)
    texts = [row.prompt_tokens.tolist() + answer for row, answer in zip(trace.rows, _answers(trace), strict=True)]
    scores, fit = np.full(len(texts), np.nan), _fitting("attention_score", trace, model, texts)
    for i, row in zip(fit, _scored(trace, model, [texts[i] for i in fit], Probes.of("attention")), strict=True):
        layer = middle_layer(row, "attention_self", range(1, model.config.num_layers + 1))
        if layer is not None:
            scores[i] = -np.log(row.metrics["attention_self"][:, layer].astype(float) + LEAST_WEIGHT).sum(0).mean()
    return Scores(scores)


def _answers(trace: Trace) -> list[list[int]]:
    """Return the drawn tokens of each row."""
    return [row.metrics["token"][row.drawn_steps].tolist() for row in trace.rows]


def _fitting(name: str, trace: Trace, model: Model, texts: Sequence[list[int]]) -> list[int]:
    """Return the rows that drew a token and whose text fits the context; warn of those that do not."""
    drew = [i for i, row in enumerate(trace.rows) if len(row.drawn_steps)]
    fit = [i for i in drew if len(texts[i]) <= model.config.context]
    if long := len(drew) - len(fit):
        logging.getLogger("jaxtrace").warning(
            "%s: %d of %d answers have no score: their text exceeds the context of %d tokens",
            *(name, long, len(drew), model.config.context),
        )
    return fit


def _bos(trace: Trace) -> StartMode:
    """Return the start token before prompts of the trace's run."""
    return (trace.info.get("prompt_format") or {}).get("bos", "auto")


def _interventions(trace: Trace, model: Model) -> Interventions | None:
    """Return the ablation that a trace's answers were drawn under; None for the whole model."""
    parts = trace.info.get("left_out") or {}
    heads = [(layer, head) for layer, head in parts.get("heads", ())]
    return Interventions.of(model.config, parts.get("layers", ()), heads) if parts else None


def _scored(trace: Trace, model: Model, texts: Sequence[list[int]], probes: Probes) -> Iterator[Row]:
    """Yield the scored rows of texts, in order; a batch of them is in memory."""
    settings = Settings(probes=probes, batch_size=BATCH, interventions=_interventions(trace, model))
    for batch in model.score_rows(model.encode(texts, chat=False), settings):
        yield from (row for _, row in batch)


def _alone(trace: Trace, model: Model) -> list[Float[np.ndarray, " drawn"]]:
    """Return ln p of each answer's tokens without its prompt; 0 for the first one, which nothing comes before."""
    answers = _answers(trace)
    scored = _scored(trace, model, [answer for answer in answers if len(answer) > 1], Probes.of("output", alphas=()))
    return [
        np.concatenate([[0.0], next(scored).metrics["logprob"][:-1].astype(float)])
        if len(answer) > 1
        else np.zeros(len(answer))
        for answer in answers
    ]


def _require_text(name: str, trace: Trace, model: Model, *, tokenizer: bool = True) -> None:
    """Raise LackingError if a prompt has images, or if the model has no tokenizer where one is needed."""
    if any(row.prompt.images for row in trace.rows):
        raise LackingError(f"{name}: needs prompts without images, and the trace has some; give another trace")
    if tokenizer and model.tokenizer is None:
        raise LackingError(f"{name}: needs a tokenizer, and the model has none; give one that has")


def _filled(name: str, template: str, row: Row, model: Model, *fields: str) -> str:
    """Return a template with the row's question and answer in it; raises ConfigError if it lacks a field."""
    if missing := {*fields} - {*FIELD.findall(template)}:
        raise ConfigError(f"{name}: its template lacks {{{min(missing)}}}; put it where the text belongs")
    question = row.prompt.text
    if question is None:
        assert model.tokenizer is not None
        question = model.tokenizer.decode(row.prompt_tokens)
    texts = {"question": question, "answer": answer_text(row)}
    return FIELD.sub(lambda match: texts[match[1]], template)
