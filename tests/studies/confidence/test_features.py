"""Features are computed from the recorded metrics."""

import dataclasses

import numpy as np
import pytest

from jaxtrace.errors import StudyError
from jaxtrace.schema import GROUPS
from jaxtrace.studies.confidence.features import answer_features, feature_tables, probes_of, token_features
from jaxtrace.studies.confidence.scores import estimator_scores
from tests.figures.traces import row, trace
from tests.studies.confidence.traces import answers


def test_token_features_are_means_over_heads_and_thirds_of_layers(rng):
    traced = row(rng, ["a", "b"], layers=6)
    features = token_features(traced, range(1, 7))
    kl = traced.metrics["lens_kl"]
    for depth, part in (("early", kl[:, :2]), ("middle", kl[:, 2:4]), ("late", kl[:, 4:])):
        np.testing.assert_allclose(features[f"lens_kl.{depth}"], part.mean(1), rtol=1e-6)
    np.testing.assert_allclose(features["sink_mass.late"], traced.metrics["sink_mass"][:, 4:].mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(features["hidden_norm.early"], traced.metrics["hidden_norm"][:, 1:3].mean(1), rtol=1e-6)
    np.testing.assert_array_equal(features["surprisal"], -traced.metrics["logprob"])
    assert features["prediction_depth"].max() <= 1
    assert all(values.shape == (2,) for values in features.values())
    assert probes_of(features) == sorted(GROUPS)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_few_layers_have_all_three_depths(rng, layers):
    features = token_features(row(rng, ["a"], layers=layers), range(1, layers + 1))
    assert all(np.isfinite(features[f"lens_kl.{depth}"]).all() for depth in ("early", "middle", "late"))


def test_answer_features_are_the_first_the_mean_and_the_largest():
    features = answer_features({"a": np.array([1.0, 5.0, 3.0]), "b": np.array([np.nan, 2.0]), "c": np.array([np.nan])})
    assert (features["a.first"], features["a.mean"], features["a.max"]) == (1.0, 3.0, 5.0)
    assert np.isnan(features["b.first"]) and features["b.mean"] == 2.0
    assert np.isnan(features["c.max"])


def test_tables_exclude_prompt_positions_and_steps_without_a_token(rng):
    answered = answers(rng, 3, steps=5)
    ahead = dataclasses.replace(answered.rows[1], prompt_steps=2)
    ahead.metrics["token"][-1] = -1
    empty = dataclasses.replace(answered.rows[2], prompt_steps=5)
    tables = feature_tables({"m": trace([answered.rows[0], ahead, empty], layers=4, heads=2)}, estimators="all")
    assert tables.answers["length"].tolist() == [5, 2]
    assert tables.tokens["answer"].tolist() == [0] * 5 + [1] * 2
    assert tables.tokens["step"].tolist() == [0, 1, 2, 3, 4, 0, 1]
    np.testing.assert_array_equal(tables.tokens["entropy"][5:], ahead.metrics["entropy"][2:4])
    scores = estimator_scores(tables, ["mean_token_entropy"])
    np.testing.assert_allclose(scores["mean_token_entropy"][1], ahead.metrics["entropy"][2:4].mean(), rtol=1e-6)


def test_samples_of_a_prompt_are_one_group(rng):
    tables = feature_tables({"m": answers(rng, 3, samples=2)})
    assert tables.answers["group"].tolist() == [0, 0, 1, 1, 2, 2]


def test_prompts_with_one_value_of_a_key_are_one_group(rng):
    answered = answers(rng, 3, samples=2)
    for number, answer_row in enumerate(answered.rows):
        if number < 4:
            answer_row.prompt.meta["name"] = "Ann"
        answer_row.prompt.meta["topic"] = "all"  # ignored unless it is the chosen key
    tables = feature_tables({"m": answered}, "name")
    assert tables.answers["group"].tolist() == [0, 0, 0, 0, 1, 1]
    assert feature_tables({"m": answered}).answers["group"].tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(StudyError, match="no prompt has 'nam' to group by; name a key"):
        feature_tables({"m": answered}, "nam")


def test_tables_keep_only_features_common_to_all_traces(rng):
    both = feature_tables({"a": answers(rng, 2), "b": answers(rng, 2, groups=("output",))})
    assert not any(name.startswith("hdi") for name in both.token_features)
    assert both.answers["trace"].tolist() == ["a", "a", "b", "b"]
    assert both.answers["group"].tolist() == [0, 1, 0, 1]
    with pytest.raises(StudyError, match="no feature in common"):
        feature_tables({"a": answers(rng, 2), "b": answers(rng, 2, groups=())})
    with pytest.raises(StudyError, match="no drawn token"):
        feature_tables({"a": trace([])})
