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
    stream, weights = [x], []
    for layer in params["layers"]:
        out, seen = attention(config, layer["attention"], norm(config, layer["attention_norm"], x))
        x = x + out
        x = x + feed_forward(layer["feed_forward"], norm(config, layer["feed_forward_norm"], x))
        stream.append(x)
        weights.append(seen)
    hidden = np.stack(stream, axis=1)
    table = params.get("unembedding", params["embedding"])
    lens_logits = norm(config, params["final_norm"], hidden[:, 1:]) @ table.T
    return Run(lens_logits[:, -1], lens_logits, hidden, np.stack(weights, axis=1))


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
