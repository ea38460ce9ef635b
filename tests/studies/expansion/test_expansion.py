"""Expanding and pruning layers: measured on a tiny model, and the study of hand-made measurements."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from jaxtrace import StudyError
from jaxtrace.figures.theme import LIGHT
from jaxtrace.studies._shared.expansions import Expansions, measure_expansions
from jaxtrace.studies.expansion.compute import expansion, spearman
from jaxtrace.studies.expansion.settings import ExpansionConfig
from tests.engine.conftest import CONFIG


def made(prompts, seed=0):
    """Return measurements of 5 layers in which candidate sets grow with entropy."""
    rng = np.random.default_rng(seed)
    entropy = np.abs(np.cumsum(rng.normal([3, -0.5, 1, -0.5, -1, -0.5], 0.3, (prompts, 6)), axis=1))
    size = np.ceil(np.exp(0.8 * entropy + rng.normal(0, 0.05, entropy.shape))).astype(int)
    shared = np.minimum(size[:, 1:], size[:, :-1]) - rng.integers(0, 2, (prompts, 5)) * (size[:, 1:] > 1)
    return Expansions(rng.integers(5, 50, prompts), 1000, entropy, size, np.clip(shared, 0, None))


def test_measurements_match_a_trace(model, prompts, generated):
    seen = []
    encoded = model.encode(prompts, chat=False)
    found = measure_expansions(model, encoded, 0.6, on_prompts=lambda *counts: seen.append(counts))
    lens = np.stack([row.metrics["lens_entropy"][0] for row in generated.rows])
    np.testing.assert_allclose(found.entropy[:, 1:], lens, atol=1e-5)
    np.testing.assert_allclose(found.change[:, 1:], np.diff(lens), atol=2e-5)
    assert found.size.shape == (4, CONFIG.num_layers + 1) and found.shared.shape == (4, CONFIG.num_layers)
    assert np.all(found.shared <= np.minimum(found.size[:, 1:], found.size[:, :-1]))
    assert found.tokens.tolist() == [5, 1, 40, 17] and seen[-1] == (4, 4)


def test_overlaps_by_their_definitions():
    some = Expansions(np.array([3]), 10, np.zeros((1, 3)), np.array([[2, 4, 4]]), np.array([[1, 4]]))
    np.testing.assert_allclose(some.overlap, [[0.5, 1]])
    np.testing.assert_allclose(some.jaccard, [[0.2, 1]])
    np.testing.assert_allclose(some.chance, [[0.4, 0.4]])


@pytest.mark.parametrize("values", [10, 3])
def test_spearman_matches_scipy(rng, values):
    a, b = rng.integers(0, values, (2, 40))
    np.testing.assert_allclose(spearman(a, b), spearmanr(a, b).statistic)
    assert np.isnan(spearman(a, np.zeros(40)))


def test_layers_and_correlations():
    measured = {"one": made(30), "two": made(20, 1)}
    result = expansion(measured, ExpansionConfig())
    layers, found = result.tables["layers"].frame, result.tables["correlations"].frame
    one = layers[layers.model == "one"].set_index("layer")
    np.testing.assert_allclose(one.expansion, measured["one"].change.mean(0))
    np.testing.assert_allclose(one.sd, measured["one"].change.std(0))
    assert (one.expansion_low < one.expansion).all() and (one.n == 30).all() and len(one) == 5
    assert one.expansion.idxmax() == 2 and one.expansion[[1, 3, 4, 5]].max() < 0
    pooled = found[(found.model == "one") & (found.of == "size, every prompt and layer")].iloc[0]
    growth = np.diff(measured["one"].size, axis=1)[:, 1:]
    np.testing.assert_allclose(pooled.spearman, spearmanr(measured["one"].change[:, 1:].ravel(), growth.ravel())[0])
    assert pooled.spearman_low > 0.5 and pooled.n == 30 and pooled.points == 120
    fixed = found[(found.model == "two") & (found.of == "size, layer and length held fixed")].iloc[0]
    assert 0 < fixed.spearman_low < fixed.spearman < 1 and fixed.n == 20
    assert len(result.pictures["expansion"].draw(LIGHT).axes) == 6


def test_unusable_input_is_refused(model):
    with pytest.raises(StudyError, match="no prompts"):
        measure_expansions(model, [], 0.6)
    flat = Expansions(np.array([3]), 10, np.zeros((1, 2)), np.ones((1, 2), int), np.ones((1, 1), int))
    with pytest.raises(StudyError, match="flat: has one layer"):
        expansion({"flat": flat}, ExpansionConfig())
