"""Write polygraph.npz: values of lm-polygraph's own estimator classes, and what they were computed from.

It needs an environment of its own and a directory of SmolLM2-135M-Instruct:

python tests/estimators/polygraph.py DIRECTORY

transformers computes the statistics (eager attention, float32) on greedy answers and samples. Models of entailment and
similarity would have to be downloaded, so their matrices are random; they are not symmetric, which shows swapped axes.
The residuals that distances are fitted to are random too. No other module imports this one.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import torch
from lm_polygraph import WhiteboxModel, estimators
from lm_polygraph.stat_calculators.attention_eliciting_prompt import AttentionElicitingPromptCalculator
from lm_polygraph.stat_calculators.entropy import EntropyCalculator
from lm_polygraph.stat_calculators.prompt import PromptCalculator
from lm_polygraph.stat_calculators.semantic_classes import SemanticClassesCalculator
from scipy.special import logsumexp, softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = Path(__file__).with_name("polygraph.npz")
# Questions and the largest number of tokens of their greedy answers; one answer is a single token.
QUESTIONS = (
    ("What is the capital of France?", 24),
    ("What is 7 times 8? Give only the number.", 24),
    ("Write one sentence about the sea.", 24),
    ("Name three colours, separated by commas.", 12),
    ("Is the sun a star? Answer yes or no.", 24),
    ("Who wrote Hamlet?", 1),
)
SAMPLED = (0, 1, 3)  # questions that are also sampled
SAMPLES, SAMPLE_TOKENS, TEMPERATURE = 5, 16, 0.5  # some samples of the first question are equal
ATTENTION = (1, 4, 5)  # answers whose attention is stored: it is by far the largest part
CSL_PROMPT, CSL_SUFFIX = "Question: {q}\nAnswer: ", "\nDoes the answer fit the question? Reply Y or N:"
RENYI = (0.25, 0.5)  # orders, of which lm-polygraph's FisherRao and RenyiNeg are functions


def padded(rows, fill):
    """Stack arrays whose first axes differ in length."""
    rows = [np.asarray(row) for row in rows]
    out = np.full((len(rows), max(map(len, rows)), *rows[0].shape[1:]), fill, rows[0].dtype)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def float_pad(rows):
    return padded([np.asarray(row, np.float32) for row in rows], np.nan)


def forward(model, ids, **options):
    """Run the model on one list of ids; the log-probabilities are float32 [positions, vocabulary]."""
    with torch.no_grad():
        out = model.model(torch.tensor([ids]), **options)
    return out, out.logits[0].log_softmax(-1).numpy()


def answer_stats(model, question, limit):
    """Return lm-polygraph's statistics of a greedy answer, each of a batch of one, and what its tests need."""
    prompt = model.tokenize([question])["input_ids"][0].tolist()
    end = model.tokenizer.eos_token_id
    with torch.no_grad():
        out = model.model.generate(torch.tensor([prompt]), max_new_tokens=limit, do_sample=False, pad_token_id=end)
    answer = out[0, len(prompt) :].tolist()
    length, first = len(answer), len(prompt) - 1
    run, log_probs = forward(model, prompt + answer, output_attentions=True)
    attention = torch.cat(run.attentions).numpy()  # [layers, heads, positions, positions]
    log_probs = log_probs[first:-1]
    # Each row holds the last keys of the query that draws a token, as many as there are tokens before this one.
    drawing = np.zeros((attention.shape[0] * attention.shape[1], length, length), np.float32)
    for t in range(1, length):
        drawing[:, t, :t] = attention[:, :, first + t, first + 1 : first + 1 + t].reshape(-1, t)
    _, alone = forward(model, answer)  # without a prompt: the first token has no prediction
    steps = range(length)
    stats = {
        "greedy_tokens": [answer],
        "greedy_texts": [model.tokenizer.decode([token for token in answer if token != end])],
        "greedy_log_probs": [log_probs],
        "greedy_log_likelihoods": [np.array([log_probs[t, answer[t]] for t in steps])],
        "greedy_lm_log_likelihoods": [np.array([np.nan, *(alone[t - 1, answer[t]] for t in steps[1:])])],
        "attention_all": [drawing],
        "forwardpass_attention_weights": [attention],
        "model": model,
    }
    stats |= EntropyCalculator()(stats)
    stats |= PromptCalculator()(stats | {"input_texts": [question]}, [question], model)
    elicit = AttentionElicitingPromptCalculator()
    elicit.prompt, elicit.suffix_prompt = CSL_PROMPT, CSL_SUFFIX
    stats |= elicit(stats, [question], model)
    return prompt, stats


def step_metrics(stats, first):
    """Return jaxtrace's metrics of each step, in float64 from transformers' log-probabilities."""
    log_p = stats["greedy_log_probs"][0].astype(float)
    sums = {order: logsumexp(order * log_p, axis=-1) for order in RENYI}
    size = log_p.shape[-1]
    weights = stats["attention_weights_eliciting_prompt"][0].mean(0)
    return {
        "logprob": stats["greedy_log_likelihoods"][0],
        "lm_logprob": stats["greedy_lm_log_likelihoods"][0],
        "entropy": -(np.exp(log_p) * log_p).sum(-1),
        "self_certainty": -log_p.mean(-1) - np.log(size),
        "fisher_rao": 2 / np.pi * np.arccos(np.exp(sums[0.5]) / np.sqrt(size)),
        **{f"renyi_{order}": value / (1 - order) for order, value in sums.items()},
        "csl_weight": weights / weights.sum(),
    }


def answer_values(stats):
    """Return the values of every class that needs one answer."""
    layers, heads, *_ = stats["forwardpass_attention_weights"][0].shape
    rauq = {"n_layers": layers, "n_heads": heads}
    made = {
        "MaximumSequenceProbability": estimators.MaximumSequenceProbability(),
        "Perplexity": estimators.Perplexity(),
        "MeanTokenEntropy": estimators.MeanTokenEntropy(),
        "SelfCertainty": estimators.SelfCertainty(),
        "FisherRao": estimators.FisherRao(),
        "FisherRao (temperature 1)": estimators.FisherRao(temperature=1),
        "RenyiNeg": estimators.RenyiNeg(),
        "RenyiNeg (temperature 1)": estimators.RenyiNeg(temperature=1),
        "AttentionScore": estimators.AttentionScore(),
        "AttentionScore gen-only": estimators.AttentionScore(gen_only=True),
        "RAUQ": estimators.RAUQ(**rauq),
        "RAUQ instruct": estimators.RAUQ(**rauq, instruct=True),
        "RAUQ entropy": estimators.RAUQ(**rauq, use_entropy=True),
        "RAUQ entropy instruct": estimators.RAUQ(**rauq, use_entropy=True, instruct=True),
        "PMI": estimators.MeanPointwiseMutualInformation(),
        "CPMI": estimators.MeanConditionalPointwiseMutualInformation(),
        "PTrue": estimators.PTrue(),
        "CSL": estimators.CSL(),
        "TokenSAR": estimators.TokenSAR(),
    }
    values = {name: float(each(stats)[0]) for name, each in made.items()}
    whole = SimpleNamespace(aligned_token_ids=range(len(stats["greedy_tokens"][0])))  # a claim of all the tokens
    values["MaxTokenEntropy"] = float(estimators.MaxTokenEntropyClaim()(stats | {"claims": [[whole]]})[0][0])
    return values


def sample_stats(model, prompt):
    """Draw samples of a prompt, and return their ids, log-probabilities and residuals of the middle layer."""
    end = model.tokenizer.eos_token_id
    middle = model.model.config.num_hidden_layers // 2
    ids, likelihoods, residuals = [], [], []
    for _ in range(SAMPLES):
        with torch.no_grad():
            out = model.model.generate(
                torch.tensor([prompt]),
                max_new_tokens=SAMPLE_TOKENS,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                top_p=1.0,
                pad_token_id=end,
            )
        sample = out[0, len(prompt) :].tolist()
        run, log_probs = forward(model, prompt + sample, output_hidden_states=True)
        ids.append(sample)
        likelihoods.append([log_probs[len(prompt) - 1 + t, sample[t]] for t in range(len(sample))])
        residuals.append(run.hidden_states[middle][0, -2].numpy())  # the position that draws the last token
    return ids, likelihoods, np.stack(residuals)


def random_comparisons(rng, texts):
    """Return random probabilities of entailment, neutral, contradiction [texts, texts, 3], and similarities.

    They are functions of the texts: equal texts have equal rows, and entail each other.
    """
    unique, inverse = np.unique(texts, return_inverse=True)
    logits = rng.normal(0, 1.5, (len(unique), len(unique), 3))
    logits[..., 0] += 1 + 4 * np.eye(len(unique))
    pairs = np.ix_(inverse, inverse)
    return softmax(logits, -1).astype(np.float32)[pairs], rng.uniform(0, 1, logits.shape[:2]).astype(np.float32)[pairs]


def token_similarities(model, tokens):
    """Return arbitrary similarities of a text to itself without each token, by the shorter text; 1 for the end."""
    shorter = [model.tokenizer.decode(tokens[:t] + tokens[t + 1 :]) for t in range(len(tokens))]
    values = np.array([0.3 + 0.7 * crc32(text.encode()) / 2**32 for text in shorter], np.float32)
    values[np.array(tokens) == model.tokenizer.eos_token_id] = 1
    return values


def sample_values(stats):
    """Return the values of every class that needs samples."""
    graphs = {
        f"{kind.__name__} {name}": kind(similarity_score=score, affinity=affinity)
        for kind in (estimators.EigValLaplacian, estimators.DegMat, estimators.Eccentricity)
        for name, score, affinity in (
            ("entail", "NLI_score", "entail"),
            ("contra", "NLI_score", "contra"),
            ("jaccard", "Jaccard_score", "entail"),
        )
    }
    made = {
        "MonteCarloSequenceEntropy": estimators.MonteCarloSequenceEntropy(),
        "MonteCarloNormalizedSequenceEntropy": estimators.MonteCarloNormalizedSequenceEntropy(),
        "SemanticEntropy": estimators.SemanticEntropy(),
        "SemanticEntropy unique": estimators.SemanticEntropy(use_unique_responses=True),
        "SemanticEntropy frequency": estimators.SemanticEntropy(class_probability_estimation="frequency"),
        "NumSemSets": estimators.NumSemSets(),
        **graphs,
        "LexicalSimilarity": estimators.LexicalSimilarity(),
        "SentenceSAR": estimators.SentenceSAR(),
        "SAR": estimators.SAR(),
        "CocoaMSP": estimators.CocoaMSP(),
        "CocoaPPL": estimators.CocoaPPL(),
        "CocoaMTE": estimators.CocoaMTE(),
        "KernelLanguageEntropy": estimators.KernelLanguageEntropy(),
        "SemanticDensity": estimators.SemanticDensity(),
        "EigenScore": estimators.EigenScore(),
    }
    return {name: np.asarray(each(stats), float) for name, each in made.items()}


def fitted(rng):
    """Return random residuals and the values of the classes that are fitted to them."""
    mix = rng.normal(size=(12, 12)) / np.sqrt(12)
    arrays = {
        "train": rng.normal(size=(160, 12)) @ mix,
        "background": rng.normal(1.0, 1.5, (120, 12)) @ mix,
        "evaluated": rng.normal(0.5, 1.3, (8, 12)) @ mix,
    }
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    stats = {
        "embeddings_decoder": arrays["evaluated"],
        "train_embeddings_decoder": arrays["train"],
        "background_train_embeddings_decoder": arrays["background"],
    }
    made = {
        "Mahalanobis": estimators.MahalanobisDistanceSeq(),
        "RelativeMahalanobis": estimators.RelativeMahalanobisDistanceSeq(),
        "RDE": estimators.RDESeq(),
    }
    return arrays, {name: np.asarray(each(stats), float) for name, each in made.items()}


def make(directory):
    """Return the arrays of the golden, by name."""
    rng = np.random.default_rng(0)
    network = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    model = WhiteboxModel(network, AutoTokenizer.from_pretrained(directory), str(directory), instruct=True)
    end = model.tokenizer.eos_token_id
    prompts, answers = zip(*(answer_stats(model, *each) for each in QUESTIONS), strict=True)
    token_similarity = [token_similarities(model, each["greedy_tokens"][0]) for each in answers]
    steps = [step_metrics(each, len(ids) - 1) for each, ids in zip(answers, prompts, strict=True)]
    values = [
        answer_values(each | {"token_similarity": [similarity]})
        for each, similarity in zip(answers, token_similarity, strict=True)
    ]
    middle = network.config.num_hidden_layers // 2
    diagonals = [
        answers[i]["forwardpass_attention_weights"][0].diagonal(axis1=2, axis2=3).transpose(2, 0, 1) for i in ATTENTION
    ]
    arrays = {
        "prompt_ids": padded([np.array(ids, np.int32) for ids in prompts], -1),
        "answer_ids": padded([np.array(each["greedy_tokens"][0], np.int32) for each in answers], -1),
        "p_true_ids": padded([_p_true_ids(model, *each) for each in zip(QUESTIONS, answers, strict=True)], -1),
        "token_similarity": float_pad(token_similarity),
        **{f"steps/{name}": float_pad([each[name] for each in steps]) for name in steps[0]},
        "attention/answers": np.array(ATTENTION),
        "attention/self": float_pad(
            [diagonal[len(prompts[i]) - 1 : -1] for i, diagonal in zip(ATTENTION, diagonals, strict=True)]
        ),
        "attention/middle": float_pad([diagonal[:, middle] for diagonal in diagonals]),
        **{f"answers/{name}": np.array([each[name] for each in values]) for name in values[0]},
    }

    torch.manual_seed(0)
    drawn = [sample_stats(model, prompts[i]) for i in SAMPLED]
    tokens = [[[token for token in sample if token != end] for sample in ids] for ids, _, _ in drawn]
    texts = [[model.tokenizer.decode(sample) for sample in each] for each in tokens]
    # The first of the compared texts is the greedy answer.
    greedy_texts = [answers[i]["greedy_texts"][0] for i in SAMPLED]
    compared = [random_comparisons(rng, [greedy, *each]) for greedy, each in zip(greedy_texts, texts, strict=True)]
    nli, similarity = map(np.stack, zip(*compared, strict=True))
    sample_similarity = [[token_similarities(model, sample) for sample in each] for each in tokens]
    stats = {
        "sample_tokens": tokens,
        "sample_texts": texts,
        "sample_log_likelihoods": [
            [values[: len(sample)] for values, sample in zip(likelihoods, each, strict=True)]
            for (_, likelihoods, _), each in zip(drawn, tokens, strict=True)
        ],
        "sample_log_probs": [[float(np.sum(values)) for values in likelihoods] for _, likelihoods, _ in drawn],
        "sample_embeddings": [residuals for _, _, residuals in drawn],
        "semantic_matrix_entail": nli[:, 1:, 1:, 0].astype(float),
        "semantic_matrix_contra": nli[:, 1:, 1:, 2].astype(float),
        "semantic_matrix_classes": nli[:, 1:, 1:].argmax(-1),
        "entailment_id": 0,
        "sample_sentence_similarity": similarity[:, 1:, 1:],
        "sample_token_similarity": sample_similarity,
        "greedy_sentence_similarity": (similarity[:, 0, 1:] + similarity[:, 1:, 0]) / 2,
        "concat_greedy_semantic_matrix_neutral_forward": nli[:, 0, 1:, 1],
        "concat_greedy_semantic_matrix_contra_forward": nli[:, 0, 1:, 2],
        "greedy_log_likelihoods": [answers[i]["greedy_log_likelihoods"][0] for i in SAMPLED],
        "entropy": [answers[i]["entropy"][0] for i in SAMPLED],
    }
    stats |= SemanticClassesCalculator()(stats, texts, model)
    arrays |= {
        "sampled": np.array(SAMPLED),
        "sample_ids": np.stack([_wide(ids, -1, np.int32) for ids, _, _ in drawn]),
        "sample_logprob": np.stack([_wide(values, np.nan, np.float32) for _, values, _ in drawn]),
        "sample_residual": np.stack([residuals for _, _, residuals in drawn]),
        "sample_token_similarity": np.stack([_wide(each, np.nan, np.float32) for each in sample_similarity]),
        "nli": nli,
        "similarity": similarity,
        **{f"samples/{name}": each for name, each in sample_values(stats).items()},
    }
    residuals, distances = fitted(rng)
    arrays |= {f"residuals/{name}": each for name, each in residuals.items()}
    arrays |= {f"fitted/{name}": each for name, each in distances.items()}
    info = {
        "model": "SmolLM2-135M-Instruct, Q4_1 dequantised",
        "questions": [question for question, _ in QUESTIONS],
        "pieces": [_pieces(model, each["greedy_tokens"][0]) for each in answers],
        "sample_pieces": [[_pieces(model, sample) for sample in ids] for ids, _, _ in drawn],
        "csl": [CSL_PROMPT, CSL_SUFFIX],
        "end": end,
        "versions": {name: version(name) for name in ("lm-polygraph", "transformers", "torch", "scikit-learn")},
    }
    return arrays | {"info": np.array(json.dumps(info))}


def _p_true_ids(model, question, stats):
    """Return the token ids after which lm-polygraph's P(True) reads a probability."""
    prompt = PromptCalculator().prompt.format(q=question[0], a=stats["greedy_texts"][0])
    return model.tokenize([prompt])["input_ids"][0].numpy().astype(np.int32)


def _pieces(model, tokens):
    """Return the text of each token; "" for the end."""
    return [model.tokenizer.decode([token], skip_special_tokens=True) for token in tokens]


def _wide(rows, fill, dtype):
    """Stack rows into [rows, SAMPLE_TOKENS]."""
    out = np.full((len(rows), SAMPLE_TOKENS), fill, dtype)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


if __name__ == "__main__":
    np.savez_compressed(FILE, **make(sys.argv[1]))
