"""A Llama in float64 NumPy, written from the architecture's description: the oracle of a whole trace."""

import math

import jax
import numpy as np

from tests import oracle
from tests.engine.reference import Run


def run(config, params, tokens):
    """Run the forward pass over one sequence [T], with parameters in the layout of `jaxtrace.init_params`."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = params["embedding"][np.asarray(tokens)]
    stream, weights, choices = [x], [], []
    for layer in params["layers"]:
        out, seen = attention(config, layer["attention"], norm(config, layer["attention_norm"], x))
        x = x + out
        read, block = norm(config, layer["feed_forward_norm"], x), layer["feed_forward"]
        out, *choice = expert_feed_forward(config, block, read) if "router" in block else [feed_forward(block, read)]
        x = x + out
        choices.append(choice)
        stream.append(x)
        weights.append(seen)
    hidden = np.stack(stream, axis=1)
    table = params.get("unembedding", params["embedding"])
    lens_logits = norm(config, params["final_norm"], hidden[:, 1:]) @ table.T
    router = joined_choices(choices) if config.experts is not None else ()
    return Run(lens_logits[:, -1], lens_logits, hidden, np.stack(weights, axis=1), *router)


def norm(config, params, x):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.norm_eps) * params["weight"]


def attention(config, params, x):
    """Return the output [T, D] and the weights [T, N, T]."""
    q, k, v = (
        np.einsum("td,nhd->nth", x, params[name]) + params.get(f"{name}_bias", np.zeros(1))[..., None, :]
        for name in ("q", "k", "v")
    )
    q, k = rotated(config, q), rotated(config, k)
    group, length = config.num_heads // config.kv_heads, len(x)
    scores = np.einsum("nth,nsh->nts", q, k.repeat(group, axis=0)) / math.sqrt(config.head_dim)
    visible = np.tril(np.ones((length, length), bool))
    weights = oracle.softmax(np.where(visible, scores, -np.inf))
    out = np.einsum("nts,nsh->tnh", weights, v.repeat(group, axis=0))
    return np.einsum("tnh,dnh->td", out, params["o"]) + params.get("o_bias", 0), weights.swapaxes(0, 1)


def rotated(config, x):
    """Rotate dimensions i and i + H/2 of x [N, T, H] by the position's angle."""
    half = config.head_dim // 2
    angle = np.arange(x.shape[1])[:, None] * np.array([frequency(config, i) for i in range(half)])
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def frequency(config, i):
    """Return the radians per position of pair i, by the Llama 3.1 rule if the config has a scaling."""
    rope = config.kind(0).rope
    plain = rope.theta ** (-2 * i / config.head_dim)
    scaling = rope.scaling
    if scaling is None:
        return plain
    wavelength = 2 * math.pi / plain
    if wavelength < scaling.original_context / scaling.high_freq_factor:
        return plain
    if wavelength > scaling.original_context / scaling.low_freq_factor:
        return plain / scaling.factor
    smooth = scaling.original_context / wavelength - scaling.low_freq_factor
    smooth /= scaling.high_freq_factor - scaling.low_freq_factor
    return (1 - smooth) * plain / scaling.factor + smooth * plain


def feed_forward(params, x):
    gate = x @ params["gate"].T + params.get("gate_bias", 0)
    up = x @ params["up"].T + params.get("up_bias", 0)
    return (gate / (1 + np.exp(-gate)) * up) @ params["down"].T + params.get("down_bias", 0)


def expert_feed_forward(config, params, x):
    """Return the output [T, D], the router's distribution over all experts [T, E] and the chosen experts [T, C]."""
    p = oracle.softmax(x @ params["router"].T)
    chosen = np.argsort(-p, axis=-1)[:, : config.experts.chosen]
    out = np.zeros_like(x)
    for t, numbers in enumerate(chosen):
        factors = p[t, numbers] / (p[t, numbers].sum() if config.experts.normalised else 1)
        for number, factor in zip(numbers, factors, strict=True):
            out[t] += factor * feed_forward({name: w[number] for name, w in params["experts"].items()}, x[t])
    return out, p, chosen


def joined_choices(choices):
    """Return `router` and `experts` of a Run from the (distribution, chosen experts) of each layer; () if dense."""
    some = next(choice for choice in choices if choice)
    whole = [choice or (np.full_like(some[0], np.nan), np.full_like(some[1], -1)) for choice in choices]
    return [np.stack(arrays, axis=1) for arrays in zip(*whole, strict=True)]
