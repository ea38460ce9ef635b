"""Deterministic runs: a prompt's tokens and metrics have the same bits in any batch, order and position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import ConfigError, Entropix, Model, Probes, Sample
from jaxtrace.engine.settings import Settings
from tests.engine.conftest import CONFIG
from tests.parallel import on_devices

SIZES = (1, 3, 8, 16)
PROBES = Probes.of("output", "attention", "dispersion", "lens", "hidden", top_tokens=3, residuals=(1, 3))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def typed(model, request):
    """Return the tiny model in a dtype."""
    return Model("tiny", CONFIG, jax.tree.map(lambda x: x.astype(jnp.dtype(request.param)), model.params))


@pytest.fixture(scope="module")
def many():
    """Return twenty prompts of unequal lengths, whose caches have 64 or 96 slots with 20 more tokens."""
    rng = np.random.default_rng(2)
    return [rng.integers(0, CONFIG.vocab_size, size).tolist() for size in rng.integers(1, 70, 20)]


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name].view(np.uint8), other[name].view(np.uint8), err_msg=name)


@pytest.mark.parametrize("sampler", [None, Sample(temperature=1.5, top_p=0.9)], ids=["greedy", "sample"])
def test_a_prompt_has_the_same_bits_in_any_batch_and_order(typed, many, sampler):
    def rows(order, batch_size):
        options = {"max_new_tokens": 20, "batch_size": batch_size, "deterministic": True, "probes": PROBES}
        settings = Settings(**{**options, "sampler": sampler} if sampler else options)
        encoded = typed.encode([many[i] for i in order], chat=False)
        # A draw's seed is the number of its prompt.
        batches = typed.generate_rows(encoded, settings, numbers=order)
        return {number: row.metrics for batch in batches for number, row in batch}

    want = rows(range(len(many)), 16)
    shuffled = np.random.default_rng(3).permutation(len(many)).tolist()
    runs = [rows(shuffled, 8), rows(range(3, 13), 3), rows([7], 1), rows([19, 7, 0], 16)]
    for run in runs:
        for number, metrics in run.items():
            same_bits(metrics, want[number])
