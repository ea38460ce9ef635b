"""softmax_moments of logits over a temperature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import softmax_moments
from jaxtrace.kernels.softmax_moments.api import OPERATION

from tests import oracle

from . import cases

SIZE = 300


@pytest.mark.parametrize("implementation", cases.implementations(OPERATION))
class TestTemperature:
    @pytest.mark.parametrize("mask", [-np.inf, -1e30])
    def test_each_row_has_its_own(self, implementation, mask, rng):
        logits = rng.normal(0, 3, (3, SIZE)).astype(np.float32)
        logits[:, 5:50] = mask
        temperature = np.float32([0.5, 1.0, 3.0])
        call = functools.partial(softmax_moments, alphas=(0.0, 2.0), implementation=implementation)
        got = jax.jit(lambda x, t: call(x, temperature=t))(jnp.asarray(logits), jnp.asarray(temperature))
        want = cases.as_oracle(logits) / temperature[:, None]
        cases.assert_near(got.moments.entropy, oracle.entropy(want), cases.ENTROPY, "entropy")
        cases.assert_near(got.moments.varentropy, oracle.varentropy(want), cases.VARENTROPY, "varentropy")
        cases.assert_near(got.moments.renyi[:, 0], np.full(3, np.log(SIZE - 45)), cases.RENYI, "count")
        cases.assert_near(got.moments.renyi[:, 1], oracle.renyi(want, 2.0), cases.RENYI, "renyi")
        cases.assert_near(got.top1_top2_gap, oracle.top1_top2_gap(want), cases.PROBABILITY, "top1_top2_gap")
        np.testing.assert_array_equal(got.top1, want.argmax(axis=-1))

    def test_one_number_is_for_all_rows(self, implementation, rng):
        logits = jnp.asarray(rng.normal(0, 3, (2, 2, SIZE)), jnp.float32)
        one = softmax_moments(logits, temperature=0.7, implementation=implementation)
        each = softmax_moments(logits, temperature=jnp.full((2, 2), 0.7), implementation=implementation)
        jax.tree.map(np.testing.assert_array_equal, one, each)
