"""Helpers of the GPU's attention kernels: the plan of slots, pieces of float32, and inputs larger than one block."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import head_dispersion, prefill_attention
from jaxtrace.kernels.attention_gpu import ROWS, SLOTS, SlotPlan, refuses
from jaxtrace.kernels.gpu_tiles import bfloat16_pieces, too_old

from . import cases


@pytest.mark.parametrize("window", [None, 1, 100])
@pytest.mark.parametrize(("queries", "group"), [(1, 7), (70, 3)])
def test_every_slot_a_row_counts_is_read_once(queries, group, window):
    slots = 1000
    last = np.array([[-1], [0], [500], [slots - queries]]) + np.arange(queries)
    first = np.zeros_like(last) if window is None else np.maximum(last - window + 1, 0)
    plan = SlotPlan.of(jnp.asarray(first), jnp.asarray(last), group, slots, 1, 128)
    assert plan.rows == queries * group
    assert plan.first.shape[1] % ROWS == 0
    row_first, row_last, blocks = (np.asarray(x) for x in (plan.first, plan.last, plan.blocks))
    for b in range(len(last)):
        assert plan.ends[b] == max(last[b].max() + 1, 0)
        for row in range(row_first.shape[1]):
            shares = blocks[b, row // ROWS]
            read = np.concatenate([np.arange(start * SLOTS, (start + count) * SLOTS) for start, count in shares])
            counted = read[(read >= row_first[b, row]) & (read <= row_last[b, row])]
            query = row // group
            want = range(max(first[b, query], 0), last[b, query] + 1) if query < queries else range(0)
            np.testing.assert_array_equal(np.sort(counted), np.array(want, int))


@pytest.mark.parametrize(("dtype", "count"), [("bfloat16", 1), ("float16", 3), ("float32", 3)])
def test_pieces_add_up_exactly(dtype, count, rng):
    x = jnp.asarray(rng.standard_cauchy((5, 400)), dtype)
    pieces = jax.jit(bfloat16_pieces)(x)
    assert pieces.shape == (count, 5, 400)
    assert pieces.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(pieces, np.float64).sum(0), np.asarray(x, np.float64))


@pytest.mark.skipif(too_old() is not None, reason=f"GPU kernels: {too_old()}")
def test_heads_that_do_not_fit_shared_memory_are_refused():
    def reason(width, dtype, **options):
        return refuses(jnp.zeros((1, 1, width), dtype), jnp.zeros((1, 1, width, 8), dtype), **options)

    assert reason(256, "bfloat16") is None and reason(128, "float32") is None
    assert reason(256, "float32", arrays=1) is None
    assert reason(256, "float32") == "blocks of float32 heads of 256 do not fit shared memory"
    assert reason(64, "float16") == "multiplies bfloat16 or float32, not float16 with float16"


@pytest.mark.skipif(too_old() is not None, reason=f"GPU kernels: {too_old()}")
def test_many_blocks_of_rows_agree_with_xla(rng):
    shapes = (1, 70, 3, 40), (1, 1, 40, 140), (1, 1, 140, 40)
    q, k, v = (jnp.asarray(rng.normal(0, 1, shape), jnp.float32) for shape in shapes)
    options = {"scale": 0.5, "window": 50}
    for call, bound in (
        (functools.partial(prefill_attention, q, k, v, jnp.array([69]), **options), 3e-5),
        (functools.partial(head_dispersion, q, k, jnp.array([69]), **options), cases.DISPERSION),
    ):
        got, want = (call(implementation=name) for name in ("pallas_gpu_interpret", "xla"))
        jax.tree.map(lambda x, y, bound=bound: cases.assert_near(x, y, bound, "result"), got, want)
