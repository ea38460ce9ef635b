"""Switches that repeat published mistakes."""

import numpy as np

from jaxtrace.studies._shared.published import duplicated_tokens, pad_with_zeros, with_prompt_positions
from jaxtrace.traces.trace import Trace


def test_a_duplicated_last_token_needs_prompt_positions():
    twice = {"compat_duplicate_last_prompt_token": True}
    assert with_prompt_positions({"limit": 3}) == {"limit": 3}
    assert with_prompt_positions(twice) == twice | {"prompt_positions": True}
    assert with_prompt_positions(twice | {"prompt_positions": False})["prompt_positions"] is False
    assert [duplicated_tokens(Trace([], info)) for info in ({}, {"last_prompt_token_twice": True})] == [0, 1]


def test_shallow_profiles_end_in_zeros():
    padded = pad_with_zeros([np.ones((1, 2)), np.ones((1, 3))])
    assert padded.tolist() == [[[1, 1, 0]], [[1, 1, 1]]]
