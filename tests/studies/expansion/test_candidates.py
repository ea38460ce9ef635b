"""Candidate sets, compared with sorting every distribution in float64."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace.engine.translators import Translators
from jaxtrace.models.forward import unembed
from jaxtrace.studies._shared.expansions import candidates
from tests import oracle
from tests.engine.conftest import CONFIG


def sets(logits, mass):
    """Return each row's candidates by adding up probabilities from the largest down."""
    found = []
    for row in np.asarray(logits, np.float64):
        p = np.exp(row - row.max())
        p /= p.sum()
        own, total = set(), 0.0
        for token in sorted(range(len(p)), key=lambda token: (-p[token], token)):
            if total >= mass:
                break
            own.add(token)
            total += p[token]
        found.append(own)
    return found


@pytest.mark.parametrize("mass", [0.05, 0.6, 0.99])
def test_sets_match_a_sort(model, rng, mass):
    residuals = jnp.float32(rng.normal(0, [[0.01], [1], [4], [10]], (4, CONFIG.embed_dim)))
    found = candidates(model.params, residuals, mass, config=CONFIG)
    logits = np.asarray(unembed(CONFIG, model.params, residuals))
    wanted = sets(logits, mass)
    assert found.size.tolist() == [len(own) for own in wanted]
    assert found.shared.tolist() == [len(a & b) for a, b in itertools.pairwise(wanted)]
    np.testing.assert_allclose(found.entropy, oracle.entropy(logits), atol=1e-5)


def test_equal_and_certain_distributions():
    config = dataclasses.replace(CONFIG, vocab_size=8, embed_dim=2)
    table = jnp.zeros((8, 2)).at[3, 0].set(100.0)
    params = {"embedding": table, "unembedding": table, "final_norm": {"weight": jnp.ones(2)}}
    residuals = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # uniform, certain of token 3, uniform
    found = candidates(params, residuals, 0.6, config=config)
    assert found.size.tolist() == [5, 1, 5] and found.shared.tolist() == [1, 1]  # tokens 0 to 4; 3
    np.testing.assert_allclose(found.entropy, [np.log(8), 0, np.log(8)], atol=1e-6)


def test_a_lens_translates_the_residuals(model, rng):
    shapes = {name: x.shape for name, x in vars(Translators.zeros(CONFIG)).items()}
    lens = Translators(**{name: jnp.float32(rng.normal(0, 0.2, shape)) for name, shape in shapes.items()})
    residuals = jnp.float32(rng.normal(0, 1, (CONFIG.num_layers + 1, CONFIG.embed_dim)))
    moved = residuals.at[:-1].add(jnp.einsum("ld,led->le", residuals[:-1], lens.weight) + lens.bias)
    found = candidates(model.params, residuals, 0.6, lens, config=CONFIG)
    wanted = candidates(model.params, moved, 0.6, config=CONFIG)
    assert found.size.tolist() == wanted.size.tolist()
    np.testing.assert_allclose(found.entropy, wanted.entropy, atol=1e-5)
    assert jax.tree.map(jnp.shape, found) == ((4,), (4,), (3,))
