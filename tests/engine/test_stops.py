"""End of rows: stop tokens, repeats, limits, and the recorded reason."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import Greedy, Probes, init_state, stop_rules
from jaxtrace.engine.loop import decode_chunk
from tests.engine.automaton import automaton

AFTER = [1, 2, 3, 4, 5, 5, 7, 6]  # 0 counts up to 5 and stays there; 6 and 7 take turns


def ends(model, prompts, **choices):
    """Return (drawn tokens, stop reason) for each row."""
    choices = {"max_new_tokens": 10, "probes": Probes.none(), **choices}
    return [(row.metrics["token"].tolist(), row.stop) for row in model.generate(prompts, **choices).rows]


def test_stop_token_ends_its_row_only():
    rows = ends(automaton(AFTER), [[0], [6], [4, 2]], stop_tokens=(3,))
    assert rows == [([1, 2, 3], "stop_token"), ([7, 6] * 5, "length"), ([3], "stop_token")]


def test_stop_tokens_of_the_checkpoint_are_the_default():
    model = automaton(AFTER, stop_tokens=(4, 7))
    assert ends(model, [[0], [6]]) == [([1, 2, 3, 4], "stop_token"), ([7], "stop_token")]


def test_empty_stop_tokens_never_stop_early():
    model = automaton(AFTER, stop_tokens=(4, 7))
    assert ends(model, [[0], [6]], stop_tokens=()) == [
        ([1, 2, 3, 4, 5, 5, 5, 5, 5, 5], "length"),
        ([7, 6] * 5, "length"),
    ]


def test_repeats_count_drawn_tokens_only():
    rows = ends(automaton(AFTER), [[0], [5, 5, 5], [6]], stop_repeats=3)
    assert rows == [([1, 2, 3, 4, 5, 5, 5], "repeats"), ([5, 5, 5], "repeats"), ([7, 6] * 5, "length")]


@pytest.mark.parametrize("repeats", [0, 1])
def test_repeats_of_one_stop_at_once_and_zero_never(repeats):
    expected = ([1], "repeats") if repeats else ([1, 2, 3, 4, 5, 5, 5, 5, 5, 5], "length")
    assert ends(automaton(AFTER), [[0]], stop_repeats=repeats) == [expected]


def test_stop_token_at_the_length_limit_is_reported_as_such():
    assert ends(automaton(AFTER), [[0]], max_new_tokens=3, stop_tokens=(3,)) == [([1, 2, 3], "stop_token")]


@pytest.mark.parametrize("length", [3, 16, 17, 40])
def test_length_limits_around_the_end_of_a_chunk(length):
    (drawn, stop), *_ = ends(automaton(AFTER), [[6]], max_new_tokens=length)
    assert (drawn, stop) == (([7, 6] * 20)[:length], "length")


def test_context_limits_the_length():
    """The last drawn token is never fed, so a full context still draws one token."""
    model = automaton(AFTER, context=6)
    rows = ends(model, [[0], [0, 0, 0, 0], [0] * 6])
    assert rows == [([1, 2, 3, 4, 5, 5], "length"), ([1, 2, 3], "length"), ([1], "length")]


def test_chunk_ends_with_its_last_row():
    model = automaton(AFTER)
    static = {"config": model.config, "probes": Probes.none(), "sampler": Greedy()}
    state = init_state(model.config, model.params, 2, 64, Probes.none())
    state, trace, valid, active, _ = decode_chunk(model.params, state, stop_rules((2, 3)), steps=9, **static)
    assert not np.asarray(active).any()
    np.testing.assert_array_equal(np.asarray(valid).sum(axis=0), [2, 2])
    np.testing.assert_array_equal(np.asarray(trace.token)[:2], [[1, 1], [2, 2]])
    np.testing.assert_array_equal(np.asarray(trace.token)[2:], 0)
    np.testing.assert_array_equal(state.length, [2, 2])


def test_chunk_ends_when_finished_rows_use_up_the_patience():
    """One row ends at the second step; each later step costs one row-step of patience."""
    model = automaton(AFTER)
    static = {"config": model.config, "probes": Probes.none(), "sampler": Greedy()}
    state = init_state(model.config, model.params, 2, 64, Probes.none())
    state = dataclasses.replace(state, token=jnp.array([0, 6]))
    run = functools.partial(decode_chunk, model.params, stop=stop_rules((2,)), steps=9, **static)
    state, _, valid, active, patience = run(state, patience=np.int32(3))
    np.testing.assert_array_equal(np.asarray(valid).sum(axis=0), [2, 5])
    np.testing.assert_array_equal(active, [False, True])
    assert patience == 0
    state, _, valid, *_ = run(state, patience=patience)
    assert not np.asarray(valid).any()
    np.testing.assert_array_equal(state.length, [2, 5])


def test_finished_rows_keep_their_state():
    model = automaton(AFTER)
    static = {"config": model.config, "probes": Probes.none(), "sampler": Greedy()}
    state = init_state(model.config, model.params, 2, 64, Probes.none(), keys=jax.random.split(jax.random.key(0), 2))
    state, *_ = decode_chunk(model.params, state, stop_rules((), 0), steps=3, **static)
    state = jax.tree.map(lambda x: x, state)
    stopped = type(state)(**{**vars(state), "active": jnp.array([True, False])})
    after, *_ = decode_chunk(model.params, stopped, stop_rules((), 0), steps=2, **static)
    np.testing.assert_array_equal(after.length, [5, 3])
    np.testing.assert_array_equal(after.token, [5, 3])
