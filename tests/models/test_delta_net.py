"""Gated delta nets against a float64 recurrence, one position after another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtrace.models.cache import RecurrentState
from jaxtrace.models.config import DecoderConfig, DeltaNet, LayerKind
from jaxtrace.models.delta_net import DeltaInputs, GatedDeltaNet, delta_chunks, delta_step

ROWS, KEY_HEADS, GROUPS, KEY_DIM, VALUE_DIM = 3, 2, 2, 8, 6


def random_inputs(rng, length, **changes):
    """Return inputs of the delta rule, with unit keys as in a model, and a memory."""

    def unit(*shape):
        x = rng.normal(size=shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    heads = ROWS, length, KEY_HEADS
    inputs = {
        "q": unit(*heads, KEY_DIM),
        "k": unit(*heads, KEY_DIM),
        "v": rng.normal(size=(*heads, GROUPS, VALUE_DIM)),
        "log_decay": -rng.exponential(0.1, (*heads, GROUPS)),
        "beta": rng.random((*heads, GROUPS)),
    }
    memory = rng.normal(size=(ROWS, KEY_HEADS, GROUPS, KEY_DIM, VALUE_DIM))
    return DeltaInputs(*map(np.float32, (inputs | changes).values())), np.float32(memory)


def recurrence(inputs, memory, counted):
    """Apply the gated delta rule position by position, in float64."""
    q, k, v, log_decay, beta = (np.float64(x) for x in inputs)
    memory, outs = np.float64(memory), []
    for t in range(q.shape[1]):
        key = k[:, t, :, None, :, None]
        decayed = memory * np.exp(log_decay[:, t])[..., None, None]
        written = beta[:, t, ..., None] * (v[:, t] - (decayed * key).sum(-2))
        memory = np.where(counted[:, t, None, None, None, None], decayed + key * written[..., None, :], memory)
        outs.append((memory * q[:, t, :, None, :, None]).sum(-2))
    return np.stack(outs, axis=1), memory


def strong_decays(rng, length):
    """Return log decays of which every fifth forgets everything, and the others next to nothing."""
    return np.where(np.arange(length)[None, :, None, None] % 5, -1e-3, -1e4) * rng.random(
        (ROWS, length, KEY_HEADS, GROUPS)
    )


compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
chunks = compiled(delta_chunks)

CASES = {
    "several chunks and a part of one": (lambda rng: random_inputs(rng, 200), None),
    "strong and weak decays": (
        lambda rng: random_inputs(rng, 130, log_decay=np.maximum(strong_decays(rng, 130), -104)),
        None,
    ),
    "one key at all positions, without decay": (
        lambda rng: random_inputs(
            rng,
            64,
            k=np.full((ROWS, 64, KEY_HEADS, KEY_DIM), KEY_DIM**-0.5),
            log_decay=np.zeros((ROWS, 64, KEY_HEADS, GROUPS)),
            beta=np.ones((ROWS, 64, KEY_HEADS, GROUPS)),
        ),
        None,
    ),
    "rows that end within a chunk": (lambda rng: random_inputs(rng, 150), (100, 0, 64)),
    "fewer positions than a chunk": (lambda rng: random_inputs(rng, 7), (7, 3, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_chunks_equal_a_float64_recurrence(name, rng):
    draw, counts = CASES[name]
    inputs, memory = draw(rng)
    length = inputs.q.shape[1]
    counted = np.arange(length) < np.array(counts or [length] * ROWS)[:, None]
    expected, after = recurrence(inputs, memory, counted)
    out, got = chunks(inputs, memory, None if counts is None else counted)
    np.testing.assert_allclose(np.asarray(out)[counted], expected[counted], rtol=0, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(got, after, rtol=0, atol=2e-5 * np.abs(after).max())


def test_one_step_equals_a_float64_recurrence(rng):
    inputs, memory = random_inputs(rng, 1)
    expected, after = recurrence(inputs, memory, np.ones((ROWS, 1), bool))
    out, got = delta_step(jax.tree.map(jnp.array, inputs), memory)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_allclose(got, after, atol=1e-6)


@pytest.mark.parametrize("name", ["k", "v", "log_decay", "beta"])
def test_a_nonfinite_input_spoils_only_its_row_and_head_from_its_position_on(name, rng):
    inputs, memory = random_inputs(rng, 80)
    expected = np.array(chunks(inputs, memory, None)[0])  # at once: the computation may read the inputs in place
    getattr(inputs, name)[1, 70, 0] = np.nan
    out, after = map(np.array, chunks(inputs, memory, None))
    assert np.isnan(out[1, 70:, 0]).all()
    assert np.isnan(after[1, 0]).all()
    out[1, 70:, 0] = expected[1, 70:, 0]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert np.isnan(after).sum() == after[1, 0].size


NET = DeltaNet(key_heads=2, value_heads=4, key_dim=8, value_dim=6, conv=4)
CONFIG = DecoderConfig("test", 7, 16, 1, 4, 2, 4, 8, 128, (LayerKind(rope=None, delta_net=NET),), norm_offset=1.0)


@pytest.fixture(scope="module")
def layer():
    module = GatedDeltaNet(CONFIG, CONFIG.pattern[0], nnx.Rngs(0))
    noise = np.random.default_rng(0)
    graph, state = nnx.split(module)
    state = jax.tree.map(lambda x: x + noise.normal(0, 0.3, x.shape).astype(np.float32), state)
    return compiled(lambda x, state_before, count: nnx.merge(graph, state)(x, state_before, count))


def random_state(rng, rows):
    return RecurrentState(
        jnp.float32(rng.normal(size=(rows, 3, 2, 28))), jnp.float32(rng.normal(size=(rows, 2, 2, 8, 6)))
    )


def test_pieces_and_single_steps_equal_one_call(layer, rng):
    x, state = jnp.float32(rng.normal(size=(2, 100, 16))), random_state(rng, 2)
    expected, after = layer(x, state, None)
    outs, start = [], 0
    for end in (2, 68, 98, 99, 100):  # pieces of at most 70 positions, padded, and two single steps
        size = end - start
        piece = x[:, start:end] if size == 1 else jnp.pad(x[:, start:end], ((0, 0), (0, 70 - size), (0, 0)))
        out, state = layer(piece, state, jnp.full(2, size))
        outs.append(out[:, :size])
        start = end
    np.testing.assert_allclose(jnp.concatenate(outs, axis=1), expected, atol=1e-5)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=1e-5), state, after)


@pytest.mark.parametrize("length", [1, 5])
def test_a_row_without_valid_positions_keeps_its_state_bit_for_bit(layer, rng, length):
    x = rng.normal(size=(2, length, 16)).astype(np.float32)
    state = jax.tree.map(lambda y: y.at[0].multiply(-0.0), random_state(rng, 2))
    x[0] = np.nan
    out, after = layer(x, state, jnp.array([0, length]))
    for before, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert np.asarray(before[0]).tobytes() == np.asarray(new[0]).tobytes()
        assert np.isfinite(new).all()
    np.testing.assert_allclose(out[1], layer(x[1:], jax.tree.map(lambda y: y[1:], state), None)[0][0], atol=1e-6)
