"""Estimators equal lm-polygraph's own classes, on answers of SmolLM2 and matrices that polygraph.npz stores.

Where a definition differs, the test says how to convert one into the other.
"""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace.estimators import residuals
from jaxtrace.estimators.second_pass import weighted_likelihood

with np.load(Path(__file__).with_name("polygraph.npz")) as stored:
    GOLDEN = {name: stored[name] for name in stored}
INFO = json.loads(str(GOLDEN["info"]))
LAYERS, HEADS, VOCAB, ALPHAS = 30, 9, 49_152, (0.25, 0.5)
TOLERANCE = 1e-4  # relative
ANSWERS, SAMPLED = range(len(INFO["questions"])), range(len(GOLDEN["sampled"]))


def valid(values):
    """Return a row's values without its padding."""
    return values[~np.isnan(values)] if values.dtype.kind == "f" else values[values >= 0]


def row_of(question, ids, pieces, **metrics):
    ended = ids[-1] == INFO["end"]
    stop = "stop_token" if ended else "length"
    return jt.Row(
        prompt=jt.Prompt(INFO["questions"][question]),
        prompt_tokens=valid(GOLDEN["prompt_ids"][question]),
        prompt_pieces=(),
        metrics={"token": ids, **metrics},
        pieces=tuple(pieces),
        text="".join(pieces),
        stop=stop,
    )


def trace_of(rows):
    return jt.Trace(rows, {"mode": "generate", "layers": LAYERS, "heads": HEADS, "alphas": ALPHAS, "vocab_size": VOCAB})


def answer_row(i, **metrics):
    """Return the row of a greedy answer, with the metrics of its steps."""
    steps = {name: valid(GOLDEN[f"steps/{name}"][i]) for name in ("logprob", "entropy", "self_certainty", "fisher_rao")}
    renyi = np.stack([valid(GOLDEN[f"steps/renyi_{alpha}"][i]) for alpha in ALPHAS], -1)
    return row_of(i, valid(GOLDEN["answer_ids"][i]), INFO["pieces"][i], **steps, renyi=renyi, **metrics)


def sample_rows(prompt, per_text_token=False):
    """Return the rows of a prompt's samples.

    Args:
      per_text_token: True to scale log-probabilities such that their mean is lm-polygraph's: their sum with the end
        token's, divided by the number of tokens without it.
    """
    rows = []
    for sample, pieces in enumerate(INFO["sample_pieces"][prompt]):
        ids, logprob = valid(GOLDEN["sample_ids"][prompt, sample]), valid(GOLDEN["sample_logprob"][prompt, sample])
        if per_text_token:
            logprob = logprob.astype(float) * len(ids) / (ids != INFO["end"]).sum()
        rows.append(row_of(GOLDEN["sampled"][prompt], ids, pieces, logprob=logprob))
    return rows


def agrees(scores, expected):
    np.testing.assert_allclose(scores.answers, expected, rtol=TOLERANCE)


ONE_PASS = {
    "MaximumSequenceProbability": ("maximum_sequence_probability", {}),
    "Perplexity": ("perplexity", {}),
    "MeanTokenEntropy": ("mean_token_entropy", {}),
    "MaxTokenEntropy": ("max_token_entropy", {}),
    "SelfCertainty": ("self_certainty", {}),
    "FisherRao": ("fisher_rao_t2", {}),
    "FisherRao (temperature 1)": ("fisher_rao", {}),
    "RenyiNeg": ("renyi_neg_t2", {}),
}


@pytest.mark.parametrize("name", ONE_PASS)
def test_estimators_of_the_output_equal_lm_polygraph(name):
    function, inputs = ONE_PASS[name]
    trace = trace_of([answer_row(i) for i in ANSWERS])
    agrees(getattr(jt.estimators, function)(trace, **inputs), GOLDEN[f"answers/{name}"])


def test_renyi_neg_adds_the_logarithm_that_lm_polygraph_subtracts():
    scores = jt.estimators.renyi_neg(trace_of([answer_row(i) for i in ANSWERS]))
    agrees(scores, GOLDEN["answers/RenyiNeg (temperature 1)"] + 2 * np.log(VOCAB))


ATTENTION = {
    "AttentionScore gen-only": ("attention_score_gen_only", {}),
    "RAUQ": ("rauq", {}),
    "RAUQ instruct": ("rauq", {"alpha": 0.5}),
    "RAUQ entropy": ("rauq_entropy", {}),
    "RAUQ entropy instruct": ("rauq_entropy", {"alpha": 0.9}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_estimators_of_attention_equal_lm_polygraph(name):
    function, inputs = ATTENTION[name]
    chosen = GOLDEN["attention/answers"]
    weights = [each[~np.isnan(each[:, 0, 0])] for each in GOLDEN["attention/self"]]
    trace = trace_of([answer_row(i, attention_self=each) for i, each in zip(chosen, weights, strict=True)])
    agrees(getattr(jt.estimators, function)(trace, **inputs), GOLDEN[f"answers/{name}"][chosen])


def comparison(values, texts):
    """Return a function of two texts that looks their comparison up."""
    numbers = {text: i for i, text in enumerate(texts)}
    return lambda first, second: values[numbers[first], numbers[second]].tolist()


def texts_of(prompt):
    """Return the texts of a prompt's greedy answer and of its samples."""
    return ["".join(pieces) for pieces in (INFO["pieces"][GOLDEN["sampled"][prompt]], *INFO["sample_pieces"][prompt])]


def entailment(prompt):
    return comparison(GOLDEN["nli"][prompt], texts_of(prompt))


def not_contradicting(prompt):
    return comparison(1 - GOLDEN["nli"][prompt][..., 2], texts_of(prompt))


def jaccard(prompt):
    def compare(first, second):
        a, b = set(first.lower().split()), set(second.lower().split())
        return len(a & b) / len(a | b)

    return compare


def similarity(prompt):
    return comparison(GOLDEN["similarity"][prompt], texts_of(prompt))


def without_each(question, pieces, values):
    """Return the similarity of a prompt and answer to the same without a token, by the shorter text."""
    start = f"{INFO['questions'][question]} "
    return {
        start + "".join(pieces[:t] + pieces[t + 1 :]): value
        for t, value in enumerate(values[: len(pieces)])
        if pieces[t]
    }


SAMPLES = {
    "MonteCarloSequenceEntropy": ("monte_carlo_sequence_entropy", None),
    "SemanticEntropy": ("semantic_entropy", {"equivalence": entailment}),
    "SemanticEntropy unique": ("semantic_entropy_unique", {"equivalence": entailment}),
    "SemanticEntropy frequency": ("discrete_semantic_entropy", {"equivalence": entailment}),
    "NumSemSets": ("num_sem_sets", {"equivalence": entailment}),
    "EigValLaplacian entail": ("eig_val_laplacian", {"similarity": entailment}),
    "EigValLaplacian contra": ("eig_val_laplacian", {"similarity": not_contradicting}),
    "EigValLaplacian jaccard": ("eig_val_laplacian", {"similarity": jaccard}),
    "DegMat entail": ("deg_mat", {"similarity": entailment}),
    "DegMat contra": ("deg_mat", {"similarity": not_contradicting}),
    "DegMat jaccard": ("deg_mat", {"similarity": jaccard}),
    "Eccentricity entail": ("eccentricity", {"similarity": entailment}),
    "Eccentricity contra": ("eccentricity", {"similarity": not_contradicting}),
    "Eccentricity jaccard": ("eccentricity", {"similarity": jaccard}),
    "LexicalSimilarity": ("lexical_similarity", None),
    "KernelLanguageEntropy": ("kernel_language_entropy", {"similarity": entailment}),
    "SentenceSAR": ("sentence_sar", {"similarity": similarity}),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_estimators_of_samples_equal_lm_polygraph(name):
    function, comparisons = SAMPLES[name]
    for prompt in SAMPLED:
        inputs = {key: compare(prompt) for key, compare in (comparisons or {}).items()}
        scores = getattr(jt.estimators, function)(trace_of(sample_rows(prompt)), **inputs)
        agrees(scores, np.full(len(scores.answers), GOLDEN[f"samples/{name}"][prompt]))


def test_normalized_sequence_entropy_counts_the_end_token_that_lm_polygraph_does_not():
    for prompt in SAMPLED:
        rows = sample_rows(prompt, per_text_token=True)
        scores = jt.estimators.monte_carlo_normalized_sequence_entropy(trace_of(rows))
        agrees(scores, np.full(len(rows), GOLDEN["samples/MonteCarloNormalizedSequenceEntropy"][prompt]))


COCOA = {"CocoaMSP": "cocoa_msp", "CocoaPPL": "cocoa_ppl", "CocoaMTE": "cocoa_mte"}


@pytest.mark.parametrize("name", COCOA)
def test_cocoa_of_a_greedy_answer_among_samples_equals_lm_polygraph(name):
    for prompt in SAMPLED:
        samples = sample_rows(prompt)
        for row in samples:
            row.metrics["entropy"] = row.metrics["logprob"]  # the greedy answer's score has no part in it
        trace = trace_of([answer_row(GOLDEN["sampled"][prompt]), *samples])
        scores = getattr(jt.estimators, COCOA[name])(trace, similarity=similarity(prompt))
        np.testing.assert_allclose(scores.answers[0], GOLDEN[f"samples/{name}"][prompt], rtol=TOLERANCE)


def test_semantic_density_of_a_greedy_answer_among_samples_equals_lm_polygraph():
    for prompt in SAMPLED:
        trace = trace_of([answer_row(GOLDEN["sampled"][prompt]), *sample_rows(prompt, per_text_token=True)])
        scores = jt.estimators.semantic_density(trace, similarity=entailment(prompt))
        np.testing.assert_allclose(scores.answers[0], GOLDEN["samples/SemanticDensity"][prompt], rtol=TOLERANCE)


def test_token_sar_equals_lm_polygraph():
    shorter = {}
    for i in ANSWERS:
        shorter |= without_each(i, INFO["pieces"][i], valid(GOLDEN["token_similarity"][i]))
    scores = jt.estimators.token_sar(
        trace_of([answer_row(i) for i in ANSWERS]), similarity=lambda _, text: float(shorter[text])
    )
    agrees(scores, GOLDEN["answers/TokenSAR"])


def test_sar_equals_lm_polygraph():
    for prompt in SAMPLED:
        shorter = {}
        for sample, pieces in enumerate(INFO["sample_pieces"][prompt]):
            values = valid(GOLDEN["sample_token_similarity"][prompt, sample])
            shorter |= without_each(GOLDEN["sampled"][prompt], pieces, values)
        whole = similarity(prompt)

        def compare(first, second, shorter=shorter, whole=whole):
            return float(shorter[second]) if second in shorter else whole(first, second)

        scores = jt.estimators.sar(trace_of(sample_rows(prompt)), similarity=compare)
        agrees(scores, np.full(len(scores.answers), GOLDEN["samples/SAR"][prompt]))


def test_eigen_score_equals_lm_polygraph():
    scores = [residuals.log_volume(each.astype(float)) for each in GOLDEN["sample_residual"]]
    np.testing.assert_allclose(scores, GOLDEN["samples/EigenScore"], rtol=TOLERANCE)


RESIDUALS = ("train", "background", "evaluated")


def test_distances_from_fitted_residuals_equal_lm_polygraph():
    fitted, background, evaluated = (GOLDEN[f"residuals/{name}"].astype(float) for name in RESIDUALS)
    near = residuals.mahalanobis_distance(fitted)(evaluated)
    np.testing.assert_allclose(near, GOLDEN["fitted/Mahalanobis"], rtol=TOLERANCE)
    relative = near - residuals.mahalanobis_distance(background)(evaluated)
    np.testing.assert_allclose(relative, GOLDEN["fitted/RelativeMahalanobis"], rtol=TOLERANCE, atol=1e-6)
    np.testing.assert_allclose(residuals.robust_distance(fitted)(evaluated), GOLDEN["fitted/RDE"], rtol=TOLERANCE)


class Reader:
    """A model that answers `score_rows` with stored metrics of each text."""

    config = SimpleNamespace(num_layers=LAYERS, context=8192)

    def __init__(self, *metrics):
        self.metrics = metrics

    def encode(self, texts, **_):
        return texts

    def score_rows(self, texts, _):
        assert len(texts) == len(self.metrics)
        yield [(i, SimpleNamespace(metrics=metrics, stop="scored")) for i, metrics in enumerate(self.metrics)]


@pytest.mark.parametrize(("name", "function"), [("PMI", "pmi"), ("CPMI", "cpmi")])
def test_mutual_information_with_the_prompt_equals_lm_polygraph(name, function):
    alone = [valid(values) for values in GOLDEN["steps/lm_logprob"]]
    reader = Reader(*({"logprob": np.append(values, np.nan)} for values in alone if len(values)))
    scores = getattr(jt.estimators, function)(trace_of([answer_row(i) for i in ANSWERS]), model=reader)
    agrees(scores, GOLDEN[f"answers/{name}"])


def test_attention_score_of_prompt_and_answer_equals_lm_polygraph():
    chosen, read = GOLDEN["attention/answers"], []
    for weights in GOLDEN["attention/middle"]:
        weights = weights[~np.isnan(weights[:, 0])]
        layers = np.ones((len(weights), LAYERS, HEADS))
        layers[:, LAYERS // 2] = weights
        read.append({"attention_self": layers, "token": np.zeros(len(weights), int)})
    trace = trace_of([answer_row(i) for i in chosen])
    agrees(jt.estimators.attention_score(trace, model=Reader(*read)), GOLDEN["answers/AttentionScore"][chosen])


def test_contextualised_likelihood_equals_lm_polygraph():
    for i in ANSWERS:
        logprobs, weights = (valid(GOLDEN[f"steps/{name}"][i]) for name in ("logprob", "csl_weight"))
        np.testing.assert_allclose(weighted_likelihood(logprobs, weights), GOLDEN["answers/CSL"][i], rtol=TOLERANCE)


@pytest.fixture(scope="module")
def real(smollm2):
    """SmolLM2 and its trace of the greedy answers."""
    model = jt.load(str(smollm2))
    prompts = [valid(ids).tolist() for ids in GOLDEN["prompt_ids"]]
    probes = jt.Probes.of("output", "attention", alphas=ALPHAS)
    trace = model.generate(prompts, max_new_tokens=GOLDEN["answer_ids"].shape[1], probes=probes)
    rows = []
    for row, padded in zip(trace.rows, GOLDEN["answer_ids"], strict=True):  # some answers were cut
        ids = valid(padded)
        np.testing.assert_array_equal(row.metrics["token"][: len(ids)], ids)
        metrics = {name: values[: len(ids)] for name, values in row.metrics.items()}
        rows.append(dataclasses.replace(row, metrics=metrics, pieces=row.pieces[: len(ids)]))
    return model, dataclasses.replace(trace, rows=rows)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ONE_PASS | ATTENTION)
def test_traces_of_a_real_model_equal_lm_polygraph(real, name):
    function, inputs = (ONE_PASS | ATTENTION)[name]
    agrees(getattr(jt.estimators, function)(real[1], **inputs), GOLDEN[f"answers/{name}"])


BEFORE, AFTER = (text.replace("{q}", "{question}") for text in INFO["csl"])
TWO_PASSES = {
    "PMI": ("pmi", {}),
    "CPMI": ("cpmi", {}),
    "PTrue": ("p_true", {}),
    "CSL": ("csl", {"before": BEFORE, "after": AFTER}),
    "AttentionScore": ("attention_score", {}),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", TWO_PASSES)
def test_second_passes_of_a_real_model_equal_lm_polygraph(real, name):
    model, trace = real
    rows = [
        dataclasses.replace(row, prompt=jt.Prompt(question), text=model.tokenizer.decode(row.metrics["token"]))
        for row, question in zip(trace.rows, INFO["questions"], strict=True)
    ]
    trace = jt.Trace(rows, trace.info | {"prompt_format": {"template": "chat"}})
    function, inputs = TWO_PASSES[name]
    agrees(getattr(jt.estimators, function)(trace, model=model, **inputs), GOLDEN[f"answers/{name}"])
