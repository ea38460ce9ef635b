"""Deterministic runs: a prompt's tokens and metrics have the same bits in any batch, order and position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import Greedy, Model, Probes, Sample
from jaxtrace.engine.buckets import fixed_width
from jaxtrace.engine.settings import Settings
from tests.engine.conftest import CONFIG
from tests.parallel import on_devices

PROBES = Probes.of("output", "attention", "lens")
SCORED = Probes.of("output", "hidden")


@pytest.fixture(scope="module")
def many():
    """Return twenty prompts of unequal lengths; with twelve more tokens the second has a larger cache."""
    rng = np.random.default_rng(2)
    lengths = [7, 60, *rng.integers(1, 30, 18)]
    return [rng.integers(0, CONFIG.vocab_size, length).tolist() for length in lengths]


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize(
    ("dtype", "sampler"),
    [
        ("float32", Sample(temperature=1.5, top_p=0.9)),
        pytest.param("bfloat16", Greedy(), marks=pytest.mark.nightly),
    ],
    ids=str,
)
def test_a_prompt_has_the_same_bits_in_any_batch_and_order(model, many, dtype, sampler):
    typed = Model("tiny", CONFIG, jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), model.params))

    def rows(numbers, batch_size):
        """Run prompts by their numbers, which seed the draws."""
        settings = Settings(PROBES, batch_size=batch_size, max_new_tokens=12, sampler=sampler, deterministic=True)
        encoded = typed.encode([many[i] for i in numbers], chat=False)
        return {i: row.metrics for batch in typed.generate_rows(encoded, settings, numbers=numbers) for i, row in batch}

    together = rows(range(20), 16)  # four rows are refilled
    assert sorted(together) == list(range(20))
    shuffled = np.random.default_rng(3).permutation(20).tolist()
    for numbers, batch_size in ((shuffled, 8), (range(3, 13), 3), ([7], 1)):
        for i, metrics in rows(numbers, batch_size).items():
            assert_same_bits(metrics, together[i])


def test_a_text_is_scored_to_the_same_bits_beside_any_others(model, many):
    score = lambda texts: model.score(texts, probes=SCORED, deterministic=True).rows  # noqa: E731
    together = score(many[:6])
    for row, text in zip(together, many[:6], strict=True):
        assert_same_bits(row.metrics, score([text])[0].metrics)


def test_a_trace_has_its_rows_in_the_order_of_their_prompts(model, monkeypatch):
    """Prompts of one cache size after another finish in another order."""
    monkeypatch.setattr(Model, "generate_rows", lambda *_: iter([[(0, "a"), (2, "c")], [(1, "b")]]))
    trace = model.generate([[1]] * 3, deterministic=True)
    assert trace.rows == ["a", "b", "c"] and trace.info["deterministic"] is True


@pytest.mark.parametrize("slots", [16, 64, 96, 128, 1024, 1040])
def test_chunks_of_a_fixed_width_fill_the_cache(slots):
    assert slots % fixed_width(slots) == 0


def test_a_run_on_a_mesh_that_splits_the_batch_has_the_same_bits():
    on_devices.run("deterministic", devices=2)
