"""The TPU kernels of attention: their plan of blocks, and results over many small blocks."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import attention_tpu
from jaxtrace.kernels.attention_tpu import AttentionBlocks
from jaxtrace.kernels.head_dispersion import tpu as dispersion_tpu

from . import cases
from .test_attention import Case, check, check_learned_sink, decode, prefill, title
from .test_head_dispersion import expected, run

NAME = "pallas_tpu_interpret"
PREFILL_CASES = [
    Case((-5, 250), 20, 400, 2, 3),
    Case((100, 350), 20, 400, 1, 3, 48, window=140, offset=300.0),
    Case((0, 250), 9, 400, 2, 2, 128, window=70, soft_cap=20.0),
]
DECODE_CASES = [Case((-1, 0, 127, 128, 399), 1, 400, 2, 3, 128), Case((-1, 130, 399), 1, 400, 4, 1, window=140)]
BLOCKS = [
    AttentionBlocks(rows=queries * group, keys=keys, group=group, row_block=row_block, slot_block=8, window=window)
    for queries, keys, group, row_block, window in itertools.product((1, 7), (5, 40), (1, 3), (1, 4), (None, 1, 6, 30))
]


def test_every_block_of_rows_reads_the_slots_it_sees_once():
    for blocks, start in itertools.product(BLOCKS, (-3, 0, 17)):
        for i in range(blocks.row_blocks):
            rows = np.arange(i * blocks.row_block, min((i + 1) * blocks.row_block, blocks.rows))
            position = start + rows[:, None] // blocks.group
            slots = np.arange(blocks.keys)
            first = 0 if blocks.window is None else np.maximum(position - blocks.window + 1, 0)
            visible = (slots <= position) & (slots >= first)
            mask = blocks.visible(slots[None], start, i)
            np.testing.assert_array_equal(np.asarray(mask)[: len(rows)], visible, err_msg=str(blocks))
            needed = np.unique(np.nonzero(visible)[1] // blocks.slot_block)
            read = [int(blocks.slot_index(start, i, j)) for j in range(blocks.slot_blocks)]
            assert read == sorted(read)
            assert len(needed) <= blocks.slot_blocks
            assert set(read) == (set(needed.tolist()) or {0})


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 8 rows and 128 slots, one KV head at a time."""
    monkeypatch.setattr(attention_tpu, "STEP_ROWS", 8)
    monkeypatch.setattr(attention_tpu, "STEP_BYTES", 1)
    monkeypatch.setattr(dispersion_tpu, "QUERIES", 8)
    monkeypatch.setattr(dispersion_tpu, "SLOTS", 128)
    monkeypatch.setattr(dispersion_tpu, "KEY_BYTES", 1)
    cases.compiled.cache_clear()
    yield
    cases.compiled.cache_clear()


@pytest.mark.usefixtures("small_blocks")
class TestManyBlocks:
    @pytest.mark.parametrize(
        ("attend", "case", "dtype"),
        [
            *((prefill, case, "float32") for case in PREFILL_CASES),
            *((decode, case, "float32") for case in DECODE_CASES),
            (prefill, PREFILL_CASES[1], "bfloat16"),
        ],
        ids=title,
    )
    def test_attention_agrees_with_oracle(self, attend, case, dtype, rng):
        q, k, v = case.arrays(rng, dtype)
        output, moments = attend(NAME, case, q, k, v)
        check(case, q, k, v, output, moments, dtype)

    @pytest.mark.parametrize(("attend", "case"), [(prefill, PREFILL_CASES[2]), (decode, DECODE_CASES[1])], ids=title)
    def test_output_is_the_same_without_moments(self, attend, case, rng):
        arrays = case.arrays(rng, "float32")
        output, _ = attend(NAME, case, *arrays, moments=False)
        cases.assert_near(output, attend(NAME, case, *arrays)[0].astype(jnp.float32), 1e-6, "output")

    def test_a_learned_sink_takes_its_share_of_the_output(self, rng):
        case = Case((-5, 250), 9, 400, 2, 2, window=140)
        check_learned_sink(case, rng, NAME, decodes=False, moments=False)

    @pytest.mark.parametrize("case", PREFILL_CASES + DECODE_CASES, ids=title)
    def test_head_dispersion_agrees_with_oracle(self, case, rng):
        q, k, _ = case.arrays(rng, "float32")
        cases.assert_near(run(NAME, case, q, k), expected(case, q, k), cases.DISPERSION, "head_jsd")

    def test_decode_takes_two_passes_if_its_scores_do_not_fit_the_chip(self, rng, monkeypatch):
        case = DECODE_CASES[1]
        monkeypatch.setattr(dispersion_tpu, "CHIP_BYTES", 0)
        q, k, _ = case.arrays(rng, "float32")
        cases.assert_near(run(NAME, case, q, k), expected(case, q, k), cases.DISPERSION, "head_jsd")
