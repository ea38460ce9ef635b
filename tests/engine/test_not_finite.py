"""NaN or infinite logits end their own row and leave the others unchanged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import Dslider, Entropix, Model, Probes, Sample, init_params
from tests.engine.automaton import automaton
from tests.engine.conftest import CONFIG
from tests.engine.reference import assert_same
from tests.engine.test_model import Letters

OUTPUT = Probes.of("output")
AFTER = [1, 2, 3, 4, 5, 5, 7, 6]  # 0 counts up to 5 and stays there; 6 and 7 take turns


@pytest.fixture
def poisoned():
    """Return an automaton whose embedding of token 3 is NaN."""
    model = automaton(AFTER)
    embedding = model.params["embedding"].at[3].set(jnp.nan)
    return dataclasses.replace(model, params=model.params | {"embedding": embedding}, tokenizer=Letters())


@pytest.mark.parametrize(
    ("sampler", "batch_size"), [(None, 1), (Sample(temperature=0.01), 4)], ids=["greedy, alone", "sample, batch"]
)
def test_row_with_nan_logits_draws_nothing_and_stops(poisoned, sampler, batch_size):
    prompts = [[6], [0], [3], [2, 3, 6], [5], [1]]
    rows = poisoned.generate(prompts, max_new_tokens=5, sampler=sampler, batch_size=batch_size).rows
    want = [[7, 6, 7, 6, 7], [1, 2, 3, -1], [-1], [-1], [5] * 5, [2, 3, -1]]
    assert [row.metrics["token"].tolist() for row in rows] == want
    assert [row.stop for row in rows] == ["length", *["not_finite"] * 3, "length", "not_finite"]
    assert (rows[1].text, rows[1].pieces, rows[2].text, rows[2].pieces) == ("bcd", ("b", "c", "d", ""), "", ("",))
    for row in rows:
        for name in ("entropy", "varentropy", "logprob", "top1_prob"):
            np.testing.assert_array_equal(np.isfinite(row.metrics[name]), row.metrics["token"] >= 0, err_msg=name)
    healthy = automaton(AFTER).generate(prompts, max_new_tokens=5, sampler=sampler, batch_size=batch_size).rows
    for i in (0, 4):
        assert_same(rows[i].metrics, healthy[i].metrics)


def test_rows_with_nan_stop_without_probes(poisoned):
    rows = poisoned.generate([[1], [6]], max_new_tokens=3, probes=Probes.none()).rows
    assert [row.metrics["token"].tolist() for row in rows] == [[2, 3, -1], [7, 6, 7]]
    assert [row.stop for row in rows] == ["not_finite", "length"]


def test_infinite_logits_stop_a_row():
    model = automaton(AFTER)
    # The final norm scales 3e38 beyond the range of float32.
    params = model.params | {"unembedding": model.params["unembedding"].at[4, 3].set(3e38)}
    rows = dataclasses.replace(model, params=params).generate([[3], [7]], max_new_tokens=3, probes=OUTPUT).rows
    assert [row.metrics["token"].tolist()[0] for row in rows] == [-1, 6]
    assert rows[0].stop == "not_finite" and np.isnan(rows[0].metrics["entropy"]).all()


def test_nan_in_padding_does_not_reach_texts():
    model = automaton(AFTER)
    prompts = [[1, 2], [6, 7, 6, 7, 6, 7, 6]]
    embedding = model.params["embedding"].at[0].set(jnp.nan)  # rows are padded with token 0
    padded = dataclasses.replace(model, params=model.params | {"embedding": embedding})
    for run in (lambda model: model.score(prompts), lambda model: model.generate(prompts, max_new_tokens=4)):
        for row, same in zip(run(padded).rows, run(model).rows, strict=True):
            assert_same(row.metrics, same.metrics)


def test_scored_text_with_nan_is_flagged(poisoned):
    rows = poisoned.score([[0, 1, 2], [0, 3, 4], [6, 7]], batch_size=2, probes=OUTPUT).rows
    assert [row.stop for row in rows] == ["scored", "not_finite", "scored"]
    np.testing.assert_array_equal(np.isnan(rows[1].metrics["entropy"]), [False, True, True])
    alone = poisoned.score([[0, 3, 4]], probes=OUTPUT).rows[0]
    np.testing.assert_allclose(alone.metrics["entropy"], rows[1].metrics["entropy"], rtol=1e-5)
    assert np.isfinite(rows[2].metrics["entropy"]).all()
    assert (rows[1].text, rows[1].pieces) == ("ade", ("d", "e", ""))


def test_progress_counts_finite_entropies_only(poisoned):
    calls = []
    on_progress = lambda *counts: calls.append(counts)  # noqa: E731
    trace = poisoned.generate([[0], [6]], max_new_tokens=5, probes=OUTPUT, on_progress=on_progress)
    prompts, tokens, entropy = np.array(calls).sum(axis=0)
    assert (prompts, tokens) == (2, 9)
    np.testing.assert_allclose(entropy, sum(np.nansum(row.metrics["entropy"]) for row in trace.rows), rtol=1e-6)


def test_rows_with_nan_are_stored_unchanged(poisoned, tmp_path):
    import jaxtrace

    trace = poisoned.generate([[0], [6]], max_new_tokens=5, probes=OUTPUT)
    trace.save(tmp_path / "run")
    for row, same in zip(jaxtrace.open(tmp_path / "run").rows, trace.rows, strict=True):
        assert (row.stop, row.pieces, row.text) == (same.stop, same.pieces, same.text)
        np.testing.assert_array_equal(row.metrics["token"], same.metrics["token"])
        np.testing.assert_array_equal(row.metrics["entropy"], same.metrics["entropy"])


@pytest.fixture(scope="module")
def impossible():
    """Return a model whose last token has the logit −∞ at every layer and position, and the model without this token.

    The final norm sets one entry of every stream to 1; the token's unembedding is −∞ there.
    """
    config = dataclasses.replace(CONFIG, norm="layer", feed_forward_bias=True, output_bias=True)
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(config, jax.random.key(0)))
    norm = params["final_norm"]
    params["final_norm"] = {"weight": norm["weight"].at[0].set(0.0), "bias": norm["bias"].at[0].set(1.0)}
    with_token = params | {"unembedding": params["unembedding"].at[-1].set(0.0).at[-1, 0].set(-jnp.inf)}
    without = params | {name: params[name][:-1] for name in ("embedding", "unembedding")}
    return Model("tiny", config, with_token), Model(
        "tiny", dataclasses.replace(config, vocab_size=config.vocab_size - 1), without
    )


@pytest.mark.parametrize("verb", [pytest.param("generate", marks=pytest.mark.nightly), "score"])  # the same metrics
def test_an_impossible_token_changes_no_metric(impossible, verb):
    probes, prompts = Probes(lens_renyi=True, top_tokens=5), [[3, 1, 4, 1, 5], [9, 2]]
    rows, want = (getattr(model, verb)(prompts, probes=probes).rows for model in impossible)
    for row, other in zip(rows, want, strict=True):
        assert (row.metrics["lens_kl"][:, 0] > 0.1).all() and row.stop == other.stop
        assert_same(row.metrics, other.metrics)


def test_an_impossible_token_is_scored_as_such(impossible):
    last = CONFIG.vocab_size - 1
    row = impossible[0].score([[3, last, 4]], probes=Probes(top_tokens=last + 1)).rows[0]
    assert row.metrics["logprob"][0] == -np.inf and np.isfinite(row.metrics["logprob"][1])
    assert (row.metrics["top_ids"][:, -1] == last).all() and (row.metrics["top_logprobs"][:, -1] == -np.inf).all()


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(Sample(), marks=pytest.mark.nightly),  # part of the next one
        Sample(top_p=0.9, min_p=0.01),
        pytest.param(Entropix(), marks=pytest.mark.nightly),  # cuts as Sample does; Dslider weighs every token
        Dslider(outlier_bias=0.0),
    ],
)
def test_an_impossible_token_is_never_drawn(impossible, sampler):
    for row in impossible[0].generate([[3, 1, 4]] * 3, sampler=sampler, probes=Probes.of("output")).rows:
        assert row.stop == "length" and np.isfinite(row.metrics["entropy"]).all()
        assert (row.metrics["token"] != CONFIG.vocab_size - 1).all() and len(set(row.metrics["token"])) > 3
