"""Features are what they say of the metrics, for what was recorded."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from jaxtrace.errors import StudyError
from jaxtrace.schema import GROUPS
from jaxtrace.studies.confidence.features import answer_features, frames, probes_of, token_features
from tests.figures.traces import row, trace
from tests.studies.confidence.traces import answers


def test_features_of_tokens(rng):
    one = row(rng, ["a", "b"], layers=6)
    found = token_features(one, range(1, 7))
    kl = one.metrics["lens_kl"]
    for depth, part in (("early", kl[:, :2]), ("middle", kl[:, 2:4]), ("late", kl[:, 4:])):
        np.testing.assert_allclose(found[f"lens_kl.{depth}"], part.mean(1), rtol=1e-6)
    np.testing.assert_allclose(found["sink_mass.late"], one.metrics["sink_mass"][:, 4:].mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found["hidden_norm.early"], one.metrics["hidden_norm"][:, 1:3].mean(1), rtol=1e-6)
    np.testing.assert_array_equal(found["surprisal"], -one.metrics["logprob"])
    assert found["prediction_depth"].max() <= 1
    assert all(values.shape == (2,) for values in found.values())
    assert probes_of(found) == sorted(GROUPS)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_few_layers_have_all_three_depths(rng, layers):
    found = token_features(row(rng, ["a"], layers=layers), range(1, layers + 1))
    assert all(np.isfinite(found[f"lens_kl.{depth}"]).all() for depth in ("early", "middle", "late"))


def test_features_of_answers():
    found = answer_features({"a": np.array([1.0, 5.0, 3.0]), "b": np.array([np.nan, 2.0]), "c": np.array([np.nan])})
    assert (found["a.first"], found["a.mean"], found["a.max"]) == (1.0, 3.0, 5.0)
    assert np.isnan(found["b.first"]) and found["b.mean"] == 2.0
    assert np.isnan(found["c.max"])


def test_frames_leave_out_positions_of_the_prompt_and_steps_without_a_token(rng):
    made = answers(rng, 3, steps=5)
    ahead = dataclasses.replace(made.rows[1], prompt_steps=2)
    ahead.metrics["token"][-1] = -1
    empty = dataclasses.replace(made.rows[2], prompt_steps=5)
    found = frames({"m": trace([made.rows[0], ahead, empty], layers=4, heads=2)})
    assert found.answers["length"].tolist() == [5, 2]
    assert found.tokens["answer"].tolist() == [0] * 5 + [1] * 2
    assert found.tokens["step"].tolist() == [0, 1, 2, 3, 4, 0, 1]
    np.testing.assert_array_equal(found.tokens["entropy"][5:], ahead.metrics["entropy"][2:4])
    np.testing.assert_allclose(found.scores["mean_entropy"][1], ahead.metrics["entropy"][2:4].mean(), rtol=1e-6)


def test_samples_of_a_prompt_are_one_group_and_are_compared(rng):
    found = frames({"m": answers(rng, 3, samples=2)})
    assert found.answers["group"].tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(found.scores["answer_sets"], 1.0)
    assert "answer_sets" not in frames({"m": answers(rng, 3)}).scores


def test_answers_are_grouped_by_what_their_prompts_share(rng):
    made = answers(rng, 3, samples=2)
    for number, one in enumerate(made.rows):
        if number < 4:
            one.prompt.meta["name"] = "Ann"
        one.prompt.meta["topic"] = "all"  # of no consequence where it is not asked for
    found = frames({"m": made}, "name")
    assert found.answers["group"].tolist() == [0, 0, 0, 0, 1, 1]
    assert frames({"m": made}).answers["group"].tolist() == [0, 0, 1, 1, 2, 2]
    pd.testing.assert_frame_equal(found.scores, frames({"m": made}).scores)  # samples of a prompt are what they were
    with pytest.raises(StudyError, match="no prompt has 'nam' to group by; name a key"):
        frames({"m": made}, "nam")


def test_traces_share_what_they_have_in_common(rng):
    both = frames({"a": answers(rng, 2), "b": answers(rng, 2, groups=("output",))})
    assert not any(name.startswith("hdi") for name in both.token_features)
    assert both.answers["trace"].tolist() == ["a", "a", "b", "b"]
    assert both.answers["group"].tolist() == [0, 1, 0, 1]
    with pytest.raises(StudyError, match="no feature in common"):
        frames({"a": answers(rng, 2), "b": answers(rng, 2, groups=())})
    with pytest.raises(StudyError, match="no drawn token"):
        frames({"a": trace([])})
