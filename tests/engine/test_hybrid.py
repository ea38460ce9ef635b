"""Decoders that mix attention with gated delta nets: their states in batches, pieces, refills and ablations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import (
    ConfigError,
    Interventions,
    Model,
    OutOfMemoryError,
    Probes,
    Sample,
    decode_step,
    init_params,
    init_state,
    prefill,
    score_step,
)
from jaxtrace.engine import buckets
from jaxtrace.engine.settings import Settings
from jaxtrace.models.cache import recurrent_states
from jaxtrace.models.config import DeltaNet, LayerKind
from jaxtrace.models.decoder import stack_layers
from jaxtrace.models.forward import forward_logits
from tests.engine.conftest import CONFIG
from tests.engine.reference import assert_same

NET = DeltaNet(key_heads=2, value_heads=4, key_dim=4, value_dim=6, conv=3)
RECURRENT = LayerKind(rope=None, delta_net=NET)
HYBRID = dataclasses.replace(CONFIG, num_layers=4, pattern=(RECURRENT, RECURRENT, LayerKind()))
NETS, ATTENDING = [0, 1, 3], [2]  # layers from 0; the last one is the tail of a stack
PROBES = Probes.of("output", "attention", "hidden")
ATTENTION = sorted({*Probes.of("attention", "dispersion").metrics} - {"token", "learned_sink_mass"})
PROMPTS = [np.random.default_rng(1).integers(0, 37, size).tolist() for size in (5, 1, 40, 17, 3, 30)]


def random_model(stacked=False):
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(HYBRID, jax.random.key(0)))
    return Model("hybrid", HYBRID, stack_layers(HYBRID, params) if stacked else params)


@pytest.fixture(scope="module")
def model():
    return random_model()


BOUND = 5e-5  # of traces whose chunks differ: the weights are large

quick = {"xla_backend_optimization_level": 0}
STATIC = {"config": HYBRID, "probes": PROBES}
feed = functools.partial(jax.jit(prefill, static_argnames=("config", "probes"), compiler_options=quick), **STATIC)
step = functools.partial(jax.jit(decode_step, static_argnames=("config", "probes"), compiler_options=quick), **STATIC)


def recurrent(state):
    """Return the states of the delta nets, as one array for each row."""
    leaves = jax.tree.leaves(recurrent_states(state.cache))
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in leaves], axis=1)


def empty(model, rows=2):
    return init_state(HYBRID, model.params, rows, 64, PROBES)


def test_padding_and_rows_without_tokens_do_not_advance_a_state(model):
    tokens = np.arange(32, dtype=np.int32).reshape(2, 16)
    fed = feed(model.params, empty(model), tokens, np.array([5, 0]))
    before = recurrent(fed)
    assert before[0].any() and not before[1].any()
    other = tokens.copy()
    other[0, 5:] = 36
    np.testing.assert_array_equal(recurrent(feed(model.params, empty(model), other, np.array([5, 0]))), before)
    after = recurrent(feed(model.params, fed, tokens, np.array([0, 16])))
    np.testing.assert_array_equal(after[0], before[0])
    assert after[1].any()


def test_pieces_of_a_prompt_equal_the_whole_prompt(model):
    """Pieces of 1, 14 and 1 tokens, the first shorter than the convolution; the other row has its own pieces."""
    tokens = np.random.default_rng(0).integers(0, 37, (2, 16), dtype=np.int32)
    want = feed(model.params, empty(model), tokens, np.array([16, 13]))
    state = empty(model)
    for start, counts in ((0, (1, 13)), (1, (14, 0)), (15, (1, 0))):
        piece = np.zeros((2, 16), np.int32)
        piece[0, : counts[0]], piece[1, : counts[1]] = tokens[0, start : start + counts[0]], tokens[1, : counts[1]]
        state = feed(model.params, state, piece, np.array(counts))
    np.testing.assert_allclose(recurrent(state), recurrent(want), atol=1e-5)
    np.testing.assert_allclose(state.hidden, want.hidden, rtol=1e-4, atol=1e-4)


def test_a_finished_row_keeps_its_state_to_the_bit(model):
    state = dataclasses.replace(empty(model), remaining=jnp.array([1, 9]))
    states = [recurrent(state)]
    for _ in range(3):
        state, _ = step(model.params, state)
        states.append(recurrent(state))
    assert state.active.tolist() == [False, True]
    np.testing.assert_array_equal(states[2][0], states[1][0])
    np.testing.assert_array_equal(states[3][0], states[1][0])
    assert (states[2][1] != states[1][1]).any() and (states[1][0] != states[0][0]).any()


def drawn(model, prompts, numbers=None, **changes):
    settings = Settings(
        PROBES, max_new_tokens=12, sampler=Sample(temperature=1.5), stop_tokens=(1, 2, 3, 4), seed=5, steps=4
    )
    settings = dataclasses.replace(settings, **changes)
    batches = model.generate_rows(model.encode(prompts, chat=False), settings, numbers=numbers)
    return [row for batch in batches for _, row in batch]


def test_refilled_rows_draw_the_same_as_alone(model):
    rows = drawn(model, PROMPTS, batch_size=2)
    assert len({row.length for row in rows}) > 2
    for i in (2, 4, 5):
        (want,) = drawn(model, PROMPTS[i : i + 1], numbers=[i])
        assert rows[i].stop == want.stop
        assert_same(rows[i].metrics, want.metrics, BOUND)


@pytest.mark.nightly
def test_stacked_layers_draw_the_same_as_unrolled(model):
    for row, other in zip(drawn(random_model(stacked=True), PROMPTS), drawn(model, PROMPTS), strict=True):
        assert_same(row.metrics, other.metrics, BOUND)


@pytest.mark.nightly
def test_refilled_texts_in_narrow_chunks_score_the_same_as_alone(model, monkeypatch):
    want = [model.score([PROMPTS[i]], probes=PROBES).rows[0].metrics for i in (2, 3)]
    monkeypatch.setattr(buckets, "CHUNK_WIDTHS", (16,))
    rows = model.score(PROMPTS, batch_size=2, probes=PROBES).rows
    for i, metrics in zip((2, 3), want, strict=True):
        assert_same(rows[i].metrics, metrics, BOUND)


@pytest.mark.nightly
def test_a_prompt_has_the_same_bits_in_any_batch(model):
    together = drawn(model, PROMPTS, deterministic=True)
    for i in (0, 3):
        (alone,) = drawn(model, PROMPTS[i : i + 1], numbers=[i], deterministic=True)
        assert all(alone.metrics[name].tobytes() == values.tobytes() for name, values in together[i].metrics.items())


@pytest.mark.parametrize("stacked", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["unrolled", "stacked"])
def test_layers_without_attention_have_no_attention_metrics_and_keep_their_numbers(stacked):
    trace = random_model(stacked).score([PROMPTS[0]], probes=Probes(attention_rows=((3, 1),)))
    row = trace.rows[0].metrics
    np.testing.assert_allclose(np.nansum(row.pop("attention_rows"), axis=-1), 1, atol=1e-6)
    for name in ATTENTION:
        assert np.isnan(row[name][:, NETS]).all() and np.isfinite(row[name][:, ATTENDING]).all(), name
    others = set(row) - {*ATTENTION, "logprob", "hidden_delta_step"}
    assert all(np.isfinite(row[name]).all() for name in others)
    states = jax.tree.leaves(recurrent_states(init_state(HYBRID, random_model().params, 1, 16, PROBES).cache))
    assert trace.info["cache"]["recurrent"] == HYBRID.recurrent_bytes() == sum(leaf.nbytes for leaf in states)
    assert trace.info["cache"]["layers"] == [3]


@pytest.mark.nightly
def test_every_second_layer_is_recorded_under_its_number(model):
    trace = model.score([PROMPTS[0]], probes=Probes.of("attention", "dispersion", layer_stride=2))
    everything = model.score([PROMPTS[0]]).rows[0].metrics
    assert trace.traced_layers == (2, 4)
    for name in ATTENTION:
        np.testing.assert_array_equal(trace.rows[0].metrics[name], everything[name][:, [1, 3]])


def test_attention_of_a_recurrent_layer_is_refused(model):
    with pytest.raises(ConfigError, match="attention_rows: layer 2 is recurrent and has no attention weights; drop it"):
        model.score([PROMPTS[0]], probes=Probes(attention_rows=((3, 0), (2, 1))))
    with pytest.raises(ConfigError, match="layer 4 is recurrent and has no attention heads; drop head 0, or ablate"):
        Interventions.of(HYBRID, heads=[(3, 0), (4, 0)])


def test_an_ablated_recurrent_layer_adds_nothing_and_advances(model):
    tokens, count = np.arange(10, dtype=np.int32).reshape(1, 10), np.array([10])
    score = jax.jit(score_step, static_argnames=("config", "probes"), compiler_options=quick)
    none, masks = Interventions.of(HYBRID), Interventions.of(HYBRID, layers=[2])
    plain, whole = score(model.params, empty(model, 1), tokens, count, tokens, None, none, **STATIC)
    state, trace = score(model.params, empty(model, 1), tokens, count, tokens, None, masks, **STATIC)
    assert not np.any(trace.hidden_delta_layer[:, :, 1]) and np.all(trace.hidden_delta_layer[:, :, [0, 2, 3]] > 0)
    size = recurrent(state).shape[1] // 3 * 2  # the first two layers, whose inputs are unchanged
    np.testing.assert_array_equal(recurrent(state)[:, :size], recurrent(plain)[:, :size])
    heads = dataclasses.replace(none, heads=np.ones((4, 4), bool))
    _, ablated = score(model.params, empty(model, 1), tokens, count, tokens, None, heads, **STATIC)
    np.testing.assert_array_equal(ablated.hidden_delta_layer[:, :, :2], whole.hidden_delta_layer[:, :, :2])


@pytest.mark.nightly
def test_gradients_and_vmap_pass_through_a_state(model):
    tokens = jnp.array([PROMPTS[3]])

    def loss(params):
        return jax.nn.logsumexp(forward_logits(HYBRID, params, tokens)).sum()

    slopes = jax.jit(jax.grad(loss), compiler_options=quick)(model.params)
    net = slopes["layers"][0]["delta_net"]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes)) and all(x.any() for x in jax.tree.leaves(net))

    def entropy(temperature):
        norm = {"weight": model.params["final_norm"]["weight"] / temperature}
        return decode_step(model.params | {"final_norm": norm}, empty(model, 1), **STATIC)[1].entropy[0]

    assert (np.diff(jax.jit(jax.vmap(entropy), compiler_options=quick)(jnp.array([0.5, 1.0, 2.0]))) > 0).all()


def test_the_description_of_a_run_has_the_bytes_of_the_states(model):
    cache = model.score([[1, 2]], probes=Probes.of("output")).info["cache"]
    assert cache["layers"] == [3]
    states = jax.tree.leaves(recurrent_states(empty(model, 1).cache))
    assert cache["recurrent"] == HYBRID.recurrent_bytes() == sum(leaf.nbytes for leaf in states)


def test_rows_whose_states_cannot_fit_are_refused(model, monkeypatch):
    """Two rows of 64 positions; keys and values alone would fit."""
    needed = HYBRID.kv_bytes(2 * 64) + 2 * HYBRID.recurrent_bytes()
    monkeypatch.setattr("jaxtrace.engine.memory.memory_limit", lambda: needed - 1)
    with pytest.raises(OutOfMemoryError, match="the caches of 2 rows of 64 positions"):
        model.generate([[1], [2]], max_new_tokens=8, batch_size=2)
