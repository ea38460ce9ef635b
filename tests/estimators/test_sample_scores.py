"""Scores of several answers from arrays, by hand."""

import numpy as np
import pytest

from jaxtrace.estimators import sample_scores

TWO_PAIRS = np.kron(np.eye(2), np.ones((2, 2)))


def pair_of(similarity):
    return np.array([[1, similarity], [similarity, 1]])


def test_a_sample_joins_the_first_class_whose_first_member_is_equivalent():
    chain = np.eye(4, dtype=bool) | np.eye(4, k=1, dtype=bool) | np.eye(4, k=-1, dtype=bool)
    np.testing.assert_array_equal(sample_scores.semantic_classes(chain), [0, 0, 1, 1])
    assert sample_scores.number_of_sets(chain) == 1
    assert sample_scores.number_of_sets(TWO_PAIRS > 0) == 2
    np.testing.assert_array_equal(sample_scores.semantic_classes(np.eye(3, dtype=bool)), [0, 1, 2])


def test_semantic_entropies_by_hand():
    """Classes of probability 0.2 + 0.1 and 0.1: shares 3/4 and 1/4."""
    logprobs, classes = np.log([0.2, 0.1, 0.1]), np.array([0, 1, 0])
    assert sample_scores.sequence_entropy(logprobs) == pytest.approx(-np.log([0.2, 0.1, 0.1]).mean())
    assert sample_scores.class_surprisal(logprobs, classes) == pytest.approx(-(2 * np.log(0.3) + np.log(0.1)) / 3)
    shares = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert sample_scores.normalized_class_entropy(logprobs, classes) == pytest.approx(shares)
    assert sample_scores.normalized_class_entropy(logprobs - 2000, classes) == pytest.approx(shares)
    thirds = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert sample_scores.class_entropy(classes) == pytest.approx(thirds)


def test_equal_texts_of_a_class_count_once():
    first = sample_scores.first_occurrences(["a", "b", "a"], np.array([0, 1, 0]))
    np.testing.assert_array_equal(first, [True, True, False])
    logprobs = np.where(first, np.log([0.2, 0.1, 0.1]), np.nan)
    once = sample_scores.class_surprisal(logprobs, np.array([0, 1, 0]))
    assert once == pytest.approx(-(2 * np.log(0.2) + np.log(0.1)) / 3)


@pytest.mark.parametrize(("similarity", "sets"), [(np.ones((4, 4)), 1), (TWO_PAIRS, 2), (np.eye(4), 4)])
def test_graphs_of_equal_and_different_answers_give_exact_values(similarity, sets):
    assert sample_scores.sum_of_eigenvalues(similarity) == pytest.approx(sets)
    assert sample_scores.mean_distance(similarity) == pytest.approx(1 - 1 / sets)
    assert sample_scores.eccentricity(similarity) == pytest.approx(np.sqrt(sets - 1), abs=1e-7)
    pairs = {1: 1, 2: 1 / 3, 4: 0}
    assert sample_scores.mean_pair_similarity(similarity) == pytest.approx(pairs[sets])


def test_two_answers_have_the_eigenvalues_of_their_similarity():
    """The normalized Laplacian of similarity s has eigenvalues 0 and 2s / (1 + s)."""
    assert sample_scores.sum_of_eigenvalues(pair_of(0.25)) == pytest.approx(2 / 1.25)
    one_way = np.array([[1, 0.5], [0, 1]])  # both directions are averaged
    assert sample_scores.sum_of_eigenvalues(one_way) == pytest.approx(2 / 1.25)
    assert sample_scores.eccentricity(pair_of(0.25)) == pytest.approx(1)  # both vectors: 0.4 is below 0.9
    assert sample_scores.eccentricity(pair_of(0.9)) == pytest.approx(0, abs=1e-7)  # one: 0.947 is not


def test_answers_without_any_weight_are_sets_of_their_own():
    assert sample_scores.sum_of_eigenvalues(np.zeros((3, 3))) == pytest.approx(3)


def test_the_kernel_entropy_of_two_answers_by_hand():
    """Entailment ½ and neutral ¼ both ways are weight 1 + ¼; the Laplacian's eigenvalues are 0 and 2½."""
    decay = np.exp(-0.3 * 2.5)
    ratio = (1 - decay) / (1 + decay)
    shares = np.array([1 + ratio, 1 - ratio]) / 2
    expected = -(shares * np.log(shares)).sum() / np.log(2)
    assert sample_scores.kernel_entropy(pair_of(0.5), 0.25 * (1 - np.eye(2))) == pytest.approx(expected)
    assert sample_scores.kernel_entropy(np.eye(5), 1 - np.eye(5)) == pytest.approx(1)


def test_similar_answers_lower_the_surprisal_of_each_other():
    logprobs, similarity = np.log([0.2, 0.1]), np.array([[1, 0.5], [0.25, 1]])
    expected = -(np.log(0.2 + 0.1 * 0.5 / 0.001) + np.log(0.1 + 0.2 * 0.25 / 0.001)) / 2
    assert sample_scores.sentence_relevance(logprobs, similarity) == pytest.approx(expected)
    assert sample_scores.sentence_relevance(logprobs - 2000, similarity) == pytest.approx(expected + 2000)
    assert sample_scores.sentence_relevance(logprobs, np.eye(2)) == pytest.approx(-np.log([0.2, 0.1]).mean())


def test_tokens_weigh_as_much_as_the_answer_changes_without_them():
    np.testing.assert_allclose(sample_scores.token_relevance(np.array([0.5, 1, 0.75])), [2 / 3, 0, 1 / 3])
    np.testing.assert_allclose(sample_scores.token_relevance(np.ones(4)), [0.25] * 4)
    assert np.isnan(sample_scores.token_relevance(np.array([0.5, np.nan]))).all()


def test_distance_and_density_of_an_answer_among_others_by_hand():
    similarity = np.array([[1, 0.5, 0], [0.5, 1, 0.25], [0.5, 0.25, 1]])  # 0–2 is ¼ over both directions
    np.testing.assert_allclose(sample_scores.distances_from_others(similarity), [0.625, 0.625, 0.75])
    density = sample_scores.density(np.log(0.5), np.log([0.25, 0.25]), np.array([1, 0]))
    assert density == pytest.approx((0.5 + 0.25) / 1)
