"""Expected metrics of a run in float64, from its logits, hidden states and attention weights."""

from dataclasses import dataclass

import numpy as np

from tests import oracle

# Absolute bounds in nats, nats² or pure numbers; lengths of hidden states have a bound relative to the largest norm.
BOUNDS = {
    "varentropy": 1e-4,
    "lens_varentropy": 1e-4,
    "attention_varentropy": 1e-4,
    "head_jsd": 2e-5,
}
RELATIVE = 1e-4
BOUND = 1e-5
# Differences and means of logits, with errors that grow with the logits: 1e-5 relative.
UNBOUNDED = ("logprob", "lens_kl", "self_certainty")
LENGTHS = ("hidden_norm", "hidden_delta_layer", "hidden_delta_step")


@dataclass(frozen=True)
class Run:
    """A forward pass over one sequence of T tokens.

    Attributes:
      logits: logits of the model [T, V].
      lens_logits: logits of the lens at layers 1 … L, [T, L, V].
      hidden: residual stream before the final norm, [T, L + 1, D].
      attention: attention weights over all S = T keys, 0 for invisible ones, [T, L, N, S]; NaN in layers without any.
      router: distributions of the routers over all experts, NaN in dense layers, [T, L, E]; None for a dense decoder.
      experts: numbers of the chosen experts, −1 in dense layers, [T, L, C]; None for a dense decoder.
      learned_sink: weight of each head's learned sink beside those keys, [T, L, N]; None without learned sinks.
    """

    logits: np.ndarray
    lens_logits: np.ndarray
    hidden: np.ndarray
    attention: np.ndarray
    router: np.ndarray | None = None
    experts: np.ndarray | None = None
    learned_sink: np.ndarray | None = None


def metrics(run, tokens, alphas=(0.5, 2.0, 5.0), windows=None, prompt_length=None):
    """Return {metric name: [T, …]} for a run.

    Args:
      run: forward pass.
      tokens: next token after each position (−1 for none), [T].
      alphas: orders of the Rényi entropies.
      windows: attention window of each layer, None for unlimited; None if no layer has one.
      prompt_length: number of positions of the prompt; None for all.
    """
    lens = oracle.lens(np.moveaxis(run.lens_logits, 1, 0))
    known = tokens >= 0
    logprob = np.where(known, oracle.logprob(run.logits, np.where(known, tokens, 0)), np.nan)
    expected = {
        "token": tokens,
        "logprob": logprob,
        "entropy": oracle.entropy(run.logits),
        "varentropy": oracle.varentropy(run.logits),
        "renyi": np.stack([oracle.renyi(run.logits, alpha) for alpha in alphas], axis=-1),
        "top1_prob": oracle.top1_prob(run.logits),
        "top1_top2_gap": oracle.top1_top2_gap(run.logits),
        "self_certainty": oracle.self_certainty(run.logits),
        "fisher_rao": oracle.fisher_rao(run.logits),
    }
    expected |= {name: np.moveaxis(values, 0, 1) for name, values in lens.items() if name != "expansion"}
    expected |= _attention(run.attention, windows or [None] * run.attention.shape[1], prompt_length)
    expected |= _hidden(run.hidden)
    expected["hdi"] = oracle.head_dispersion(expected["attention_entropy"])
    expected["head_jsd"] = oracle.head_jsd(run.attention)
    if run.router is not None:
        expected |= oracle.router(run.router, run.experts)
    return expected if run.learned_sink is None else expected | {"learned_sink_mass": run.learned_sink}


def _attention(weights, windows, prompt_length):
    expected = {}
    for t, layer, head in np.ndindex(weights.shape[:3]):
        row = np.asarray(weights[t, layer, head], np.float64)
        visible = oracle.visible_keys(t, len(row), windows[layer])
        assert not np.delete(np.nan_to_num(row), visible).any(), "the reference attends beyond its window"
        for name, value in oracle.attention_row(row[visible] / row.sum(), visible, t, prompt_length).items():
            value = np.nan if np.isnan(row).all() else value
            expected.setdefault(name, np.zeros(weights.shape[:3]))[t, layer, head] = value
    return expected


def _hidden(stream):
    stream = np.asarray(stream, np.float64)
    rows = [oracle.hidden(x, before) for x, before in zip(stream[1:], stream[:-1], strict=True)]
    first = oracle.hidden(stream[0])
    names = ("hidden_delta_layer", "hidden_cosine_layer")
    expected = {name: np.stack([first[name], *(row[name] for row in rows)]) for name in names}
    norm = np.linalg.norm(stream, axis=-1)
    moved = np.linalg.norm(np.diff(stream, axis=0), axis=-1)
    step = np.concatenate([np.full_like(norm[:1], np.nan), moved])  # the first position has no previous one
    return expected | {"hidden_norm": norm, "hidden_delta_step": step}


def at(metrics, steps):
    """Return the metrics of some positions."""
    return {name: values[steps] for name, values in metrics.items()}


def assert_metrics(got, want, lens_logits=None, errors=None):
    """Assert that metrics have the expected names, shapes and NaNs, and values within the bounds.

    With `lens_logits` [T, L, V], `lens_top1` may be any token within the bound of the most likely one. `errors` holds
    errors of the reference itself by metric; twice an error is added to the bound.
    """
    assert set(got) == set(want)
    for name, expected in want.items():
        if name == "lens_top1" and lens_logits is not None:
            p = oracle.softmax(lens_logits)
            chosen = np.take_along_axis(p, np.asarray(got[name])[..., None], axis=-1)[..., 0]
            assert (chosen >= p.max(axis=-1) - BOUND).all()
            continue
        bound = BOUNDS.get(name, BOUND)
        if name in LENGTHS:
            bound = RELATIVE * want["hidden_norm"].max()
        bound += 2 * (errors or {}).get(name, 0)
        relative = BOUND if name in UNBOUNDED else 0
        np.testing.assert_allclose(got[name], expected, rtol=relative, atol=bound, err_msg=name)


def assert_same(got, want, bound=BOUND):
    """Assert that two traces of one text agree: integers exactly, floats within the bound (lengths relative)."""
    assert set(got) == set(want)
    for name, expected in want.items():
        if expected.dtype.kind == "i":
            np.testing.assert_array_equal(got[name], expected, err_msg=name)
            continue
        scale = want["hidden_norm"].max() if name in LENGTHS else 1.0
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=bound * scale, err_msg=name)
