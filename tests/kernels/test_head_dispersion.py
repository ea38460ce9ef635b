"""head_dispersion and dispersion_of against the oracle."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import dispersion_of, head_dispersion
from jaxtrace.kernels.head_dispersion.api import OPERATION
from jaxtrace.kernels.prefill_attention import xla

from tests import oracle

from . import cases
from .test_attention import PREFILL_CASES, Case, title

RUNS = [(case, "float32") for case in PREFILL_CASES] + [(PREFILL_CASES[3], "bfloat16")]


def run(implementation, case, q, k):
    call = cases.compiled(head_dispersion, implementation=implementation, **case.options)
    return call(q, k, jnp.asarray(case.start, jnp.int32))


def expected(case, q, k):
    q, k = cases.as_oracle(q), cases.as_oracle(k.swapaxes(2, 3))
    return oracle.head_jsd(oracle.attention(q, k, k, case.positions, **case.options)["weights"])


@pytest.mark.parametrize("implementation", cases.implementations(OPERATION))
class TestHeadDispersion:
    @pytest.mark.parametrize(("case", "dtype"), RUNS, ids=title)
    def test_agrees_with_oracle(self, implementation, case, dtype, rng):
        q, k, _ = case.arrays(rng, dtype)
        got = run(implementation, case, q, k)
        cases.assert_near(got, expected(case, q, k), cases.DISPERSION, "head_jsd")
        assert (np.asarray(got) >= -cases.DISPERSION).all()
        assert (np.asarray(got) <= math.log(case.kv_heads * case.group) + cases.DISPERSION).all()

    def test_stays_exact_for_scores_of_sd_6_over_4096_keys(self, implementation, rng):
        case = Case((4095,), 1, 4096, 2, 4)
        q = jnp.asarray(rng.normal(0, 6, (1, 1, 8, 64)), jnp.float32)
        k = jnp.asarray(rng.normal(0, 1, (1, 2, 64, 4096)), jnp.float32)
        cases.assert_near(run(implementation, case, q, k), expected(case, q, k), cases.DISPERSION, "head_jsd")

    def test_is_0_for_equal_heads_and_ln_n_for_disjoint_ones(self, implementation, rng):
        case = Case((3,), 1, 4, 1, 4)
        q, k, _ = case.arrays(rng, "float32")
        equal = jnp.broadcast_to(q[:, :, :1], q.shape)
        cases.assert_near(run(implementation, case, equal, k), np.zeros((1, 1)), 1e-6, "head_jsd")
        q = jnp.eye(4, 64)[None, None] * 1000
        k = jnp.eye(64, 4)[None, None]
        cases.assert_near(run(implementation, case, q, k), [[math.log(4)]], 1e-6, "head_jsd")


def test_blocks_of_queries_do_not_change_the_result(rng, monkeypatch):
    case = Case((0, 3), 7, 20, 2, 2)
    q, k, _ = case.arrays(rng, "float32")
    cases.compiled.cache_clear()
    monkeypatch.setattr(xla, "BLOCK_ENTRIES", 3 * 2 * 4 * 20)
    cases.assert_near(run("xla", case, q, k), expected(case, q, k), cases.DISPERSION, "head_jsd")


@pytest.mark.parametrize("kind", ["std", "var", "cv", "fano", "range"])
class TestDispersionOf:
    def test_agrees_with_oracle(self, kind, rng):
        entropies = rng.uniform(0, 8, (3, 5, 16)).astype(np.float32)
        got = dispersion_of(jnp.asarray(entropies), kind)
        cases.assert_near(got, oracle.head_dispersion(entropies, kind), 1e-5, kind)

    def test_is_0_for_equal_heads(self, kind):
        for value in (0.0, 2.5):
            assert float(dispersion_of(jnp.full(8, value), kind)) == 0
