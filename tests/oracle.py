"""Float64 NumPy version of every metric, written from its definition: slow, plain, free of jaxtrace code.

Names are the metric names. Axis letters: B batch, T query positions, S key positions, N query heads,
K key/value heads, H head dim, D embed, V vocabulary, L layers. Units are nats.
"""

import math

import numpy as np

# ---- one distribution ----------------------------------------------------------------------------


def log_softmax(scores):
    """Return ln p over the last axis; a score of −inf is an absent entry, and a row may have no entry."""
    scores = np.asarray(scores, np.float64)
    top = scores.max(axis=-1, keepdims=True)
    shifted = scores - np.where(np.isfinite(top), top, 0.0)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    return shifted - np.log(np.where(total > 0, total, 1.0))


def softmax(scores):
    """Return p over the last axis."""
    return np.exp(log_softmax(scores))


def _ln(p):
    """Return ln p, and 0 where p is 0: every use is multiplied by p."""
    return np.log(np.where(p > 0, p, 1.0))


def entropy_of(p):
    """Return −Σ p ln p over the last axis."""
    p = np.asarray(p, np.float64)
    return -(p * _ln(p)).sum(axis=-1)


def varentropy_of(p):
    """Return Σ p (ln p + entropy)² over the last axis."""
    p = np.asarray(p, np.float64)
    return (p * (_ln(p) + entropy_of(p)[..., None]) ** 2).sum(axis=-1)


def renyi_of(p, alpha):
    """Return ln(Σ p^α) / (1 − α); its limits are ln(support), the entropy, and −ln max p. 0 for an empty row."""
    p = np.asarray(p, np.float64)
    has_entry = p.sum(axis=-1) > 0
    if alpha == 1:
        return entropy_of(p)
    if alpha == 0:
        return np.log(np.maximum((p > 0).sum(axis=-1), 1))
    if alpha == math.inf:
        return -np.log(np.where(has_entry, p.max(axis=-1), 1.0))
    powers = np.where(p > 0, np.where(p > 0, p, 1.0) ** alpha, 0.0).sum(axis=-1)
    return np.log(np.where(has_entry, powers, 1.0)) / (1 - alpha)


# ---- next-token distribution ---------------------------------------------------------------------


def soft_capped(scores, cap):
    scores = np.asarray(scores, np.float64)
    return scores if cap is None else cap * np.tanh(scores / cap)


def entropy(logits):
    return entropy_of(softmax(logits))


def varentropy(logits):
    return varentropy_of(softmax(logits))


def renyi(logits, alpha):
    """Return the Rényi entropy; the limit 0 counts the present entries, however small their probability."""
    if alpha == 0:
        return np.log(np.maximum((np.asarray(logits) > -np.inf).sum(axis=-1), 1))
    return renyi_of(softmax(logits), alpha)


def logsumexp(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=-1)
    return top + np.log(np.exp(logits - top[..., None]).sum(axis=-1))


def logprob(logits, token):
    """Return ln p[token]; token has the shape of logits without its last axis."""
    return np.take_along_axis(log_softmax(logits), np.asarray(token)[..., None], axis=-1)[..., 0]


def top1(logits):
    return np.argmax(np.asarray(logits, np.float64), axis=-1)


def top1_prob(logits):
    return softmax(logits).max(axis=-1)


def top1_top2_gap(logits):
    """Return p₍₁₎ − p₍₂₎; the second probability of a row of one entry is 0."""
    ranked = np.sort(softmax(logits), axis=-1)
    return ranked[..., -1] - (ranked[..., -2] if ranked.shape[-1] > 1 else 0.0)


def self_certainty(logits):
    """Return KL(U ‖ p), U uniform over the present entries; 0 for a row without one."""
    ln_p = log_softmax(logits)
    present = np.isfinite(ln_p)
    n = np.maximum(present.sum(axis=-1), 1)
    return np.where(present.any(axis=-1), -np.where(present, ln_p, 0.0).sum(axis=-1) / n - np.log(n), 0.0)


def fisher_rao(logits):
    """Return (2/π) arccos(Σ √p / √n) over the n present entries; 0 for a row without one."""
    ln_p = log_softmax(logits)
    n = np.isfinite(ln_p).sum(axis=-1)
    cosine = np.exp(ln_p / 2).sum(axis=-1) / np.sqrt(np.maximum(n, 1))
    return np.where(n > 0, 2 / np.pi * np.arccos(np.minimum(cosine, 1.0)), 0.0)


def top_k_mass(logits, k):
    """Return the sum of the k largest probabilities."""
    return np.sort(softmax(logits), axis=-1)[..., -k:].sum(axis=-1)


# ---- through the layers --------------------------------------------------------------------------


def unembed(hidden, unembedding, soft_cap=None):
    """Return the logits [..., V] of hidden [..., D] and unembedding [V, D]."""
    return soft_capped(np.asarray(hidden, np.float64) @ np.asarray(unembedding, np.float64).T, soft_cap)


def lens(logits):
    """Return the metrics of lens logits [L, ..., V], layers 1…L; the last layer is the output distribution."""
    p = softmax(logits)
    h = entropy_of(p)
    return {
        "lens_entropy": h,
        "lens_varentropy": varentropy_of(p),
        "lens_kl": lens_kl(logits),
        "lens_top1": top1(logits),
        "lens_top1_prob": p.max(axis=-1),
        "expansion": h[1:] - h[:-1],
    }


def lens_kl(logits):
    """Return KL(final ‖ lens_l) [L, ...]; ∞ where a lens lacks an entry of the final distribution."""
    ln_p = log_softmax(logits)
    present = np.isfinite(ln_p[-1])
    p_final, ln_final = np.exp(ln_p[-1]), np.where(present, ln_p[-1], 0.0)
    terms = [
        np.where(present & ~np.isfinite(ln_l), np.inf, p_final * (ln_final - np.where(np.isfinite(ln_l), ln_l, 0.0)))
        for ln_l in ln_p
    ]
    return np.stack([term.sum(axis=-1) for term in terms])


def prediction_depth(tokens):
    """Return the first layer (from 1) of lens_top1 [L] that has the final token and keeps it."""
    depth = len(tokens)
    while depth > 1 and tokens[depth - 2] == tokens[-1]:
        depth -= 1
    return depth


def hidden(x, x_before=None):
    """Return the metrics of the residual stream x [L + 1, D], row 0 the embedding; x_before is the stream at t − 1."""
    x = np.asarray(x, np.float64)
    norm = np.sqrt((x**2).sum(axis=-1))
    metrics = {
        "hidden_norm": norm[1:],
        "hidden_delta_layer": np.sqrt(((x[1:] - x[:-1]) ** 2).sum(axis=-1)),
        "hidden_cosine_layer": (x[1:] * x[:-1]).sum(axis=-1) / (norm[1:] * norm[:-1]),
    }
    if x_before is not None:
        metrics["hidden_delta_step"] = np.sqrt(((x - np.asarray(x_before, np.float64)) ** 2).sum(axis=-1))[1:]
    return metrics


# ---- routers -------------------------------------------------------------------------------------


def router_distribution(logits, scoring="softmax"):
    """Return the distribution over all experts [..., E]: the softmax, or the sigmoids divided by their sum."""
    if scoring == "softmax":
        return softmax(logits)
    return softmax(-np.logaddexp(0, -np.asarray(logits, np.float64)))  # ln sigmoid(x) = −ln(1 + e^−x)


def router(p, chosen):
    """Return the metrics of distributions [..., E] over all experts, of which `chosen` [..., C] are used."""
    p = np.asarray(p, np.float64)
    return {
        "router_entropy": entropy_of(p),
        "router_top_mass": np.take_along_axis(p, np.asarray(chosen), axis=-1).sum(axis=-1),
    }


# ---- attention -----------------------------------------------------------------------------------


SINGLE_POSITIONS = ("sink_mass", "attention_self", "attention_previous", "attention_prompt_mass")


def visible_keys(position, keys, window=None):
    """Return the indices of the keys seen from `position`, in its window or `Chunk`; none for a negative one."""
    if chunk := getattr(window, "size", None):
        return np.arange(max(0, position // chunk * chunk), min(position + 1, keys))
    first = 0 if window is None else max(0, position + 1 - window)
    return np.arange(first, min(position + 1, keys))


def attention(q, k, v, positions, *, scale, window=None, soft_cap=None, learned_sink=None, prompt_length=None):
    """Return metrics [B, T, N], `output` [B, T, N, H] and `weights` [B, T, N, S] of q, k and v [B, K, S, H].

    `positions` [B, T] is the position of each query among the keys; a negative one sees no key, and all is 0.
    `learned_sink` [N] is a logit of each head beside its scores, which adds a metric and takes its weight of the
    output; of a query that sees no key it takes all. `prompt_length` [B] is the number of positions of each prompt;
    None if every position is one of them.
    """
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, queries, heads, _ = q.shape
    group, keys = heads // k.shape[1], k.shape[2]
    weights = np.zeros((batch, queries, heads, keys))
    metrics = {name: np.zeros((batch, queries, heads)) for name in attention_row(np.ones(1), [0], 0)}
    if learned_sink is not None:
        metrics["learned_sink_mass"] = np.ones((batch, queries, heads))
    output = np.zeros((batch, queries, heads, v.shape[-1]))
    for b, t, n in np.ndindex(batch, queries, heads):
        position = int(positions[b][t])
        visible = visible_keys(position, keys, window)
        if len(visible) == 0:
            continue
        scores = soft_capped(k[b, n // group, visible] @ q[b, t, n] * scale, soft_cap)
        a = softmax(scores)
        weights[b, t, n, visible] = a
        output[b, t, n] = a @ v[b, n // group, visible]
        if learned_sink is not None:
            *with_sink, mass = softmax([*scores, learned_sink[n]])
            output[b, t, n] *= sum(with_sink)
            metrics["learned_sink_mass"][b, t, n] = mass
        prompt = None if prompt_length is None else prompt_length[b]
        for name, value in attention_row(a, visible, position, prompt).items():
            metrics[name][b, t, n] = value
    return metrics | {"weights": weights, "output": output}


def attention_row(a, keys, position, prompt_length=None):
    """Return the metrics of the weights `a` of a query at `position` over the positions `keys` that it sees.

    With `position` None the keys have no positions: the metrics of single positions are NaN.
    """
    mass = lambda chosen: float(a[chosen].sum())  # noqa: E731
    keys = np.full(len(a), np.nan) if position is None else np.asarray(keys)
    others = a[keys != 0]
    metrics = {
        "attention_entropy": entropy_of(a),
        "attention_entropy_normalized": entropy_of(a) / math.log(len(a)) if len(a) > 1 else 0.0,
        "attention_varentropy": varentropy_of(a),
        "attention_entropy_no_sink": entropy_of(others / others.sum()) if others.sum() > 0 else 0.0,
        "attention_max": a.max(),
    }
    if position is None:
        return metrics | dict.fromkeys(SINGLE_POSITIONS, np.nan)
    return metrics | {
        "sink_mass": mass(keys == 0),
        "attention_self": mass(keys == position),
        "attention_previous": mass(keys == position - 1),
        "attention_prompt_mass": 1.0 if prompt_length is None else mass(keys < prompt_length),
    }


def head_dispersion(head_entropy, kind="std"):
    """Return the spread of attention_entropy [..., N] over the query heads; `std` is hdi, `var` is head_entropy_var."""
    h = np.asarray(head_entropy, np.float64)
    mean = h.mean(axis=-1)
    var = ((h - mean[..., None]) ** 2).mean(axis=-1)
    spread = {"std": np.sqrt(var), "var": var, "range": h.max(axis=-1) - h.min(axis=-1)}
    if kind in ("cv", "fano"):
        return (np.sqrt(var) if kind == "cv" else var) / mean
    return spread[kind]


def head_jsd(weights):
    """Return H(mean_h a_h) − mean_h H(a_h) of weights [..., N, S]."""
    weights = np.asarray(weights, np.float64)
    return entropy_of(weights.mean(axis=-2)) - entropy_of(weights).mean(axis=-1)
